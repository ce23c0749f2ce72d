//! Tests: what a rule asks of a field, and the answer.

use super::address::{Network, addresses};
use super::condition::Truth;
use super::fields::{Field, Role};
use super::pattern::{Comparison, Pattern};
use super::subject::{Person, Subject};
use super::value::Value;

/// How a number is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Order {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    /// All bits of the value are set.
    Bits,
}

/// What a test asks of a field.
#[derive(Debug, Clone)]
pub enum Question {
    /// A text fulfils each of these patterns; in a list, each pattern may be fulfilled by another element.
    Text(Vec<Pattern>),
    /// Each element of a list that is not empty fulfils the pattern.
    Every(Pattern),
    /// A text holds an address in one of the networks.
    Address(Vec<Network>),
    /// The number compares so with one of the values.
    Number(Order, Vec<i64>),
    /// The flag has this value.
    Flag(bool),
    /// There is a value, or, as is known, none. An empty list is none.
    Exists(bool),
    /// The field could be read, or not.
    Known(bool),
    /// A text compares so with a text of one of these fields.
    Field(Comparison, bool, Vec<Field>),
}

/// A compiled test.
#[derive(Debug, Clone)]
pub struct Test {
    /// Of which field.
    pub field: Field,
    /// What is asked.
    pub question: Question,
}

impl Test {
    /// Puts the question to a subject.
    pub fn evaluate(&self, subject: &Subject<'_>) -> Truth {
        if subject.hot() && !self.field.hot() {
            // Not looked at yet: not even whether it exists is known.
            return Truth::Unknown;
        }
        match self.field.role {
            Role::Own => self.of(subject, Person::Own),
            Role::Ancestor => {
                let ancestors = subject.ancestors();
                let any = Truth::any(
                    ancestors.processes.iter().map(|ancestor| self.of(subject, Person::Relative(ancestor))),
                );
                match any {
                    // One that was not found might fulfil it.
                    Truth::False if !ancestors.complete => Truth::Unknown,
                    any => any,
                }
            }
            role => self.of(subject, subject.person(role)),
        }
    }

    /// Puts the question to one process.
    pub fn of(&self, subject: &Subject<'_>, person: Person<'_>) -> Truth {
        if subject.held() && !self.can_be_held() {
            // Only the worker looks at it.
            return Truth::Unknown;
        }
        let value = subject.value_of(person, &self.field);
        let cut = subject.cut(person, &self.field);
        match &self.question {
            Question::Field(comparison, cased, others) => Truth::any(others.iter().map(|other| {
                let answer = same(*comparison, *cased, &value, &subject.value(other));
                let whole = !cut && !subject.cut(subject.person(other.role), other);
                if whole || answer == Truth::Unknown { answer } else { Truth::Unknown }
            })),
            _ if cut => self.answer_of_cut(&value),
            _ => self.answer(&value),
        }
    }

    /// A listener can answer it while it holds the program.
    pub fn can_be_held(&self) -> bool {
        let others = match &self.question {
            Question::Field(_, _, others) => others.as_slice(),
            _ => &[],
        };
        self.field.held() && others.iter().all(Field::held)
    }

    /// Puts the question to a value whose end was cut off, which might have held anything.
    fn answer_of_cut(&self, value: &Value<'_>) -> Truth {
        let holds = |pattern: &Pattern, text: &[u8], whole| {
            if whole { pattern.matches(text) } else { pattern.matches_beginning(text) }
        };
        match &self.question {
            Question::Text(patterns) => {
                let certain = patterns
                    .iter()
                    .all(|pattern| value.any_text_of_cut(|text, whole| holds(pattern, text, whole)));
                if certain { Truth::True } else { Truth::Unknown }
            }
            Question::Every(pattern) => {
                let fails = value.any_text_of_cut(|text, whole| whole && !pattern.matches(text));
                if fails { Truth::False } else { Truth::Unknown }
            }
            _ => match self.answer(value) {
                Truth::False => Truth::Unknown,
                answer => answer,
            },
        }
    }

    /// Puts a question that asks nothing of other fields to a value.
    pub fn answer(&self, value: &Value<'_>) -> Truth {
        match (&self.question, value) {
            (Question::Known(wanted), value) => Truth::from(matches!(value, Value::Unknown) != *wanted),
            (_, Value::Unknown) => Truth::Unknown,
            (Question::Exists(wanted), value) => Truth::from(value.is_none() != *wanted),
            (_, Value::Absent) => Truth::False,
            (Question::Text(patterns), value) => {
                Truth::from(patterns.iter().all(|pattern| value.any_text(|text| pattern.matches(text))))
            }
            (Question::Every(pattern), value) => {
                Truth::from(!value.is_none() && !value.any_text(|text| !pattern.matches(text)))
            }
            (Question::Address(networks), value) => Truth::from(value.any_text(|text| {
                addresses(text).any(|address| networks.iter().any(|network| network.contains(address)))
            })),
            (Question::Number(order, numbers), Value::Number(own)) => {
                let holds = |number: &i64| match order {
                    Order::Equal => own == number,
                    Order::Greater => own > number,
                    Order::GreaterOrEqual => own >= number,
                    Order::Less => own < number,
                    Order::LessOrEqual => own <= number,
                    Order::Bits => own & number == *number,
                };
                Truth::from(numbers.iter().any(holds))
            }
            (Question::Flag(wanted), Value::Flag(own)) => Truth::from(own == wanted),
            // The reader of rules gives each kind of field only its own questions.
            _ => Truth::Unknown,
        }
    }
}

/// Compares each text of a field with each of another.
fn same(comparison: Comparison, cased: bool, own: &Value<'_>, other: &Value<'_>) -> Truth {
    match (own, other) {
        (Value::Unknown, _) | (_, Value::Unknown) => Truth::Unknown,
        (Value::Number(own), Value::Number(other)) => Truth::from(own == other),
        (Value::Flag(own), Value::Flag(other)) => Truth::from(own == other),
        _ => Truth::from(own.any_text(|own| other.any_text(|other| comparison.compare(own, other, cased)))),
    }
}
