//! Trees of YAML, with the place of each node.
//!
//! The parser gives events; the tree is built here without recursion and within limits, so that no file can exhaust
//! stack or memory: neither by nesting nor by aliases of aliases.

use std::collections::HashMap;
use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

/// A longer text is refused, in bytes. The longest rule of SigmaHQ has 60 kB.
pub(super) const LONGEST_TEXT: usize = 1 << 20;
/// A text with more nodes is refused, where an alias counts as what it stands for.
pub(super) const MOST_NODES: usize = 50_000;
/// Lists and maps nest at most this deep.
pub(super) const DEEPEST: usize = 32;

/// Where something stands: line from 1 and column from 0, in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    start: (usize, usize),
    end: (usize, usize),
}

impl Place {
    fn of(span: Span) -> Self {
        Place { start: (span.start.line(), span.start.col()), end: (span.end.line(), span.end.col()) }
    }

    /// The place in bytes; of more than a line, its first line.
    pub(super) fn in_bytes(self, text: &str) -> Range<usize> {
        let mut line_start = 0;
        for _ in 1..self.start.0 {
            line_start +=
                text[line_start..].find('\n').map_or(text.len() - line_start, |newline| newline + 1);
        }
        let line = text[line_start..].split('\n').next().unwrap_or_default();
        let at = |column: usize| line.char_indices().nth(column).map_or(line.len(), |(index, _)| index);
        let end = if self.end.0 == self.start.0 { at(self.end.1) } else { line.len() };
        let start = at(self.start.1);
        line_start + start..line_start + end.max(start)
    }
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mistake {
    /// Where.
    pub place: Place,
    /// A sentence.
    pub message: String,
}

/// Shorthand for a mistake.
pub(super) fn mistake(place: Place, message: impl Into<String>) -> Mistake {
    Mistake { place, message: message.into() }
}

/// A node of the tree.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Where it stands.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Nothing.
    Null,
    /// A scalar: its text, and whether it stands without quotation marks, so that it may be a number.
    Scalar(String, bool),
    /// A list.
    List(Vec<Node>),
    /// A map in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// The key of an entry.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// Where it stands.
    pub place: Place,
    /// The key.
    pub text: String,
}

impl Node {
    /// The entry of a map with this key.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(own, _)| own.text == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// Text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(text, _) => Some(text),
            _ => None,
        }
    }

    /// True or false, if that is written without quotation marks.
    pub(super) fn flag(&self) -> Option<bool> {
        match &self.value {
            Value::Scalar(text, true) => match text.as_str() {
                "true" | "True" | "TRUE" => Some(true),
                "false" | "False" | "FALSE" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    /// The type in words.
    pub(super) fn describe(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar(..) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// The documents of a text; after a syntax error, those before it and the mistake.
pub(super) fn documents(text: &str) -> (Vec<Node>, Option<Mistake>) {
    if text.len() > LONGEST_TEXT {
        let message = format!("the file is larger than {LONGEST_TEXT} bytes");
        return (Vec::new(), Some(mistake(Place::default(), message)));
    }
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let step = event.map_err(|error| syntax(&error)).and_then(|(event, span)| builder.take(event, span));
        if let Err(mistake) = step {
            return (builder.documents, Some(mistake));
        }
    }
    (builder.documents, None)
}

fn syntax(error: &ScanError) -> Mistake {
    let marker = error.marker();
    let start = (marker.line(), marker.col());
    mistake(Place { start, end: start }, format!("not YAML: {}", error.info()))
}

/// A list or map whose end has not come yet.
struct Open {
    place: Place,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    /// The entries, and a key whose value has not come yet.
    Map(Vec<(Key, Node)>, Option<Key>),
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Mistake> {
        let place = Place::of(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let value = scalar(&text, plain, tag.as_deref(), place)?;
                self.count(1, place)?;
                self.node(Node { place, value }, anchor)
            }
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor).cloned() else {
                    return Err(mistake(place, "an alias inside of what it stands for"));
                };
                self.count(size, place)?;
                self.node(Node { place, ..node }, 0)
            }
            Event::SequenceStart(anchor, tag) => {
                self.start(Content::List(Vec::new()), anchor, tag.as_deref(), place)
            }
            Event::MappingStart(anchor, tag) => {
                self.start(Content::Map(Vec::new(), None), anchor, tag.as_deref(), place)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { place, anchor, content }) => {
                    let value = match content {
                        Content::List(list) => Value::List(list),
                        Content::Map(entries, _) => Value::Map(entries),
                    };
                    self.node(Node { place, value }, anchor)
                }
                None => Ok(()),
            },
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => Ok(()),
        }
    }

    fn count(&mut self, nodes: usize, place: Place) -> Result<(), Mistake> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MOST_NODES {
            return Err(mistake(
                place,
                format!("the file has more than {MOST_NODES} values, aliases resolved"),
            ));
        }
        Ok(())
    }

    fn start(
        &mut self,
        content: Content,
        anchor: usize,
        tag: Option<&Tag>,
        place: Place,
    ) -> Result<(), Mistake> {
        if tag.is_some() {
            return Err(mistake(place, "tags (`!name`) are not known in Sigma rules"));
        }
        if self.open.len() == DEEPEST {
            return Err(mistake(place, format!("lists and maps nest more than {DEEPEST} levels deep")));
        }
        self.count(1, place)?;
        self.open.push(Open { place, anchor, content });
        Ok(())
    }

    fn node(&mut self, node: Node, anchor: usize) -> Result<(), Mistake> {
        if anchor != 0 {
            let size = size(&node);
            // What is kept for aliases counts too.
            self.count(size, node.place)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.documents.push(node),
            Some(Content::List(list)) => list.push(node),
            Some(Content::Map(entries, waiting)) => match waiting.take() {
                Some(key) => entries.push((key, node)),
                None => {
                    let place = node.place;
                    let text = match node.value {
                        Value::Scalar(text, _) => text,
                        Value::Null => String::new(),
                        _ => return Err(mistake(place, "a key must be a text")),
                    };
                    if let Some((first, _)) = entries.iter().find(|(key, _)| key.text == text) {
                        let line = first.place.start.0;
                        return Err(mistake(
                            place,
                            format!("the key `{text}` stands in line {line} already"),
                        ));
                    }
                    *waiting = Some(Key { place, text });
                }
            },
        }
        Ok(())
    }
}

fn scalar(text: &str, plain: bool, tag: Option<&Tag>, place: Place) -> Result<Value, Mistake> {
    let plain = match tag {
        None => plain,
        // `!` and `!!str` say that a number is a text.
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => false,
        Some(_) => return Err(mistake(place, "tags (`!name`) are not known in Sigma rules")),
    };
    let null = plain && matches!(text, "" | "~" | "null" | "Null" | "NULL");
    Ok(if null { Value::Null } else { Value::Scalar(text.to_owned(), plain) })
}

/// How many nodes there are in it. Nesting is bounded, so recursion is.
fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Null | Value::Scalar(..) => 0,
        Value::List(list) => list.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|(_, value)| 1 + size(value)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(text: &str) -> String {
        documents(text).1.map(|mistake| mistake.message).unwrap_or_default()
    }

    #[test]
    fn trees_keep_order_places_and_kinds() {
        let text = "a: 1\nb: '1'\nc: ~\nd:\n  - é: x\n---\nsecond: !!str 5\n";
        let (documents, mistake) = documents(text);
        assert_eq!((documents.len(), mistake), (2, None));
        assert!(matches!(documents[0].get("a").unwrap().value, Value::Scalar(ref text, true) if text == "1"));
        assert!(
            matches!(documents[0].get("b").unwrap().value, Value::Scalar(ref text, false) if text == "1")
        );
        assert!(matches!(documents[0].get("c").unwrap().value, Value::Null));
        assert!(
            matches!(documents[1].get("second").unwrap().value, Value::Scalar(ref text, false) if text == "5")
        );
        let Value::List(list) = &documents[0].get("d").unwrap().value else { panic!() };
        let place = list[0].get("é").unwrap().place;
        assert_eq!(&text[place.in_bytes(text)], "x");
    }

    #[test]
    fn aliases_are_resolved_within_the_limit() {
        let (documents, mistake) = documents("a: &x [1, 2]\nb: *x\n");
        assert_eq!(mistake, None);
        assert!(matches!(&documents[0].get("b").unwrap().value, Value::List(list) if list.len() == 2));
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = format!("*a{}, ", level - 1).repeat(9);
            bomb += &format!("a{level}: &a{level} [{before}*a{}]\n", level - 1);
        }
        assert!(message(&bomb).contains("aliases resolved"), "{}", message(&bomb));
        assert!(message("a: &a [*a]").contains("inside of what it stands for"), "{}", message("a: &a [*a]"));
    }

    #[test]
    fn mistakes() {
        assert!(message(&"[".repeat(100)).contains("levels deep"));
        assert!(message(&format!("{}x", "- ".repeat(1000))).contains("levels deep"));
        assert!(message(&"x".repeat(LONGEST_TEXT + 1)).contains("larger than"));
        assert!(message("a: 1\na: 2").contains("stands in line 1 already"));
        assert!(message("a: !thing 1").contains("tags"));
        assert!(message("a: 'x").starts_with("not YAML: "));
        assert!(message("? [a]\n: b").contains("a key must be a text"));
    }

    proptest! {
        #[test]
        fn any_text_ends(text in "([-?:,{}\\[\\]#&*!|>'\"%@ \\n\\ta-c~]|é){0,80}") {
            let (documents, mistake) = documents(&text);
            for node in documents {
                let _ = node.place.in_bytes(&text);
            }
            if let Some(mistake) = mistake {
                let _ = mistake.place.in_bytes(&text);
            }
        }
    }
}
