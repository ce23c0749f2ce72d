//! The record: how many alerts were not told by themselves, and what they had in common.

use super::command;
use crate::alert::{Alert, Matched};
use crate::calendar;
use crate::diagnostics::counted;

/// Command lines kept of those that were folded.
const SAMPLES: usize = 5;
/// Bytes kept of each.
pub(super) const LONGEST_SAMPLE: usize = 256;

/// Why alerts were not told by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// They are the same as one that was told.
    Repeated,
    /// There were too many different ones of the rule and the subject.
    HeldBack,
}

impl Why {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Repeated => "repeated",
            Why::HeldBack => "held-back",
        }
    }
}

/// Alerts that were not told by themselves.
#[derive(Debug, Clone)]
pub struct Folded {
    /// Why.
    pub why: Why,
    /// The alert that they repeat, or that was the first told of the rule and subject.
    pub alert_id: String,
    /// The number of this record among those of the alert, from 1.
    pub number: u32,
    /// Their most severe rule.
    pub rule: Matched,
    /// How many there were.
    pub count: u64,
    /// When the first and the last was executed: nanoseconds since 1970.
    pub first_ns: u64,
    /// See `first_ns`.
    pub last_ns: u64,
    /// The real user.
    pub uid: Option<u32>,
    /// The same by name.
    pub user: Option<String>,
    /// The executable, where all have the same.
    pub exe: Option<Vec<u8>>,
    /// The parent's executable, where all have the same.
    pub parent_exe: Option<Vec<u8>>,
    /// The id of the container.
    pub container_id: Option<String>,
    /// The name of the container.
    pub container: Option<String>,
    /// The service manager's unit.
    pub unit: Option<String>,
    /// Different command lines, the first ones.
    pub samples: Vec<Vec<u8>>,
    /// There were others.
    pub more_samples: bool,
}

impl Folded {
    /// With one alert; `first_id` is that of the alert that was told.
    pub(super) fn new(why: Why, alert: &Alert, first_id: &str, number: u32) -> Self {
        let exec = &alert.exec;
        let origin = &alert.origin;
        let mut folded = Folded {
            why,
            alert_id: first_id.to_owned(),
            number,
            rule: alert.rule.clone(),
            count: 0,
            first_ns: alert.time_ns,
            last_ns: alert.time_ns,
            uid: exec.details.uid(0),
            user: alert.users[0].clone(),
            exe: exec.image.exe().map(<[u8]>::to_vec),
            parent_exe: exec.details.parent.exe().map(<[u8]>::to_vec),
            container_id: origin.place.container_id.clone(),
            container: origin.container.name.clone(),
            unit: origin.place.unit.clone(),
            samples: Vec::new(),
            more_samples: false,
        };
        folded.add(alert);
        folded
    }

    pub(super) fn add(&mut self, alert: &Alert) {
        let exec = &alert.exec;
        self.count += 1;
        self.first_ns = self.first_ns.min(alert.time_ns);
        self.last_ns = self.last_ns.max(alert.time_ns);
        self.rule.severity = self.rule.severity.max(alert.rule.severity);
        self.exe.take_if(|exe| Some(exe.as_slice()) != exec.image.exe());
        self.parent_exe.take_if(|exe| Some(exe.as_slice()) != exec.details.parent.exe());
        let command = command(&exec.image);
        if !self.samples.contains(&command) {
            if self.samples.len() < SAMPLES {
                self.samples.push(command);
            } else {
                self.more_samples = true;
            }
        }
    }

    /// The record's own id.
    pub fn id(&self) -> String {
        let mark = match self.why {
            Why::Repeated => 'r',
            Why::HeldBack => 'h',
        };
        format!("{}-{mark}{}", self.alert_id, self.number)
    }

    /// What happened, in a sentence.
    pub fn sentence(&self) -> String {
        let until = calendar::rfc3339(self.last_ns);
        match self.why {
            Why::Repeated => {
                let times = counted(self.count, "more time", "more times");
                format!("happened {times} until {until}: {}", self.rule.title)
            }
            Why::HeldBack => {
                let alerts = counted(self.count, "other alert", "other alerts");
                let were = if self.count == 1 { "was" } else { "were" };
                format!("{alerts} {were} held back until {until}: {}", self.rule.title)
            }
        }
    }

    /// It says less, so that a shorter form can be written; false if nothing is left to be left out.
    pub fn shorten(&mut self) -> bool {
        self.more_samples |= !self.samples.is_empty();
        self.samples.pop().is_some()
    }

    /// Keys and values of the text form, those that tell most first.
    pub fn pairs(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut pairs: Vec<(&'static str, Vec<u8>)> = Vec::new();
        let mut add = |key, value: Option<&[u8]>| pairs.extend(value.map(|value| (key, value.to_vec())));
        add("severity", Some(self.rule.severity.as_str().as_bytes()));
        add("folded", Some(self.why.as_str().as_bytes()));
        add("rule", Some(self.rule.id.as_bytes()));
        add("message", Some(self.sentence().as_bytes()));
        add("count", Some(self.count.to_string().as_bytes()));
        add("first", Some(calendar::rfc3339(self.first_ns).as_bytes()));
        add("last", Some(calendar::rfc3339(self.last_ns).as_bytes()));
        add("user", self.user.as_deref().map(str::as_bytes));
        add("uid", self.uid.map(|uid| uid.to_string()).as_deref().map(str::as_bytes));
        add("exe", self.exe.as_deref());
        add("parent-exe", self.parent_exe.as_deref());
        add("container", self.container_id.as_deref().map(str::as_bytes));
        add("container-name", self.container.as_deref().map(str::as_bytes));
        add("unit", self.unit.as_deref().map(str::as_bytes));
        for sample in &self.samples {
            add("cmdline", Some(sample));
        }
        if self.more_samples {
            add("more-cmdlines", Some(b"yes"));
        }
        add("alert", Some(self.alert_id.as_bytes()));
        add("id", Some(self.id().as_bytes()));
        pairs
    }
}
