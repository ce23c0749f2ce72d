//! The executable's file in an event, and which utility it is.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Bytes, Event, Moment, values};
use crate::identity::contents::hexadecimal;
use crate::identity::index::Installed;
use crate::identity::{By, Identity, Unsettled};
use crate::process::exec::Exec;
use crate::process::file::{DescribedFile, FileFacts, PERMISSIONS, REGULAR};
use crate::process::names::Name;
use crate::rules::catalogue::Catalogue;
use crate::rules::fields::Field;
use crate::rules::subject::{Subject, Surroundings};
use crate::rules::value::Value;

/// What is known of the executable's file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Hard links; 0 if it was unlinked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links: Option<u32>,
    /// Permission bits in octal digits: `"4755"`.
    #[serde(skip_serializing_if = "Option::is_none", with = "values::octal")]
    pub mode: Option<u32>,
    /// Name of the owner, or the number if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Name of the group, or the number if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Id of the owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Id of the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// When the content was modified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<Moment>,
    /// When content, name, owner or mode was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed: Option<Moment>,
    /// Major and minor number of the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<(u32, u32)>,
    /// Inode number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
    /// SHA-256 in hexadecimal, small letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// It belongs to a package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package_managed: Option<bool>,
}

/// The utility whose installed file, or a copy of it, was executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SameAs {
    /// Its name in the catalogue.
    pub utility: String,
    /// Where it is installed.
    pub path: Bytes,
    /// By what it was recognised: `inode`, `build-id` or `content`.
    pub by: By,
    /// That, as text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// It is the file that the dynamic loader was told to run.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub loaded: bool,
}

impl Event {
    /// Fills in the file, and which utility it is.
    pub(super) fn fill_file(&self, exec: &mut Exec, catalogue: &Catalogue) {
        let file = &self.exe_file;
        let seconds_since = |then: Option<Moment>| {
            let (now, then) = (self.time?.ns, then?.ns);
            Some((i128::from(now) - i128::from(then)).div_euclid(1_000_000_000) as i64)
        };
        let name = |name: &Option<String>| name.clone().map_or(Name::Unknown, Name::Is);
        exec.described = Some(Box::new(DescribedFile {
            size: file.size,
            links: file.links,
            mode: file.mode,
            owner: name(&file.owner),
            group: name(&file.group),
            age: seconds_since(file.modified),
            changed: seconds_since(file.changed),
            sha256: file.sha256.clone(),
            package_managed: file.package_managed,
            recognised_by: self.same_as.as_ref().map_or(String::new(), |same| same.value.clone()),
        }));
        exec.file = facts(file);
        exec.details.unsettled = self.identity_unknown.then_some(Unsettled::Unreadable);
        exec.details.identity = self.same_as.as_ref().and_then(|same| {
            let utility = catalogue.number(&same.utility).map(|_| same.utility.as_str().into())?;
            let paths = vec![same.path.as_ref().into()];
            let file = FileFacts::default();
            let installed = Arc::new(Installed { utility, paths, file, build_id: None });
            let at_its_place = !same.loaded && exec.image.exe() == Some(same.path.as_ref());
            Some(Identity { installed, by: same.by, sha256: None, loaded: same.loaded, at_its_place })
        });
    }

    /// Writes down the file, and which utility it is.
    pub(super) fn record_file(&mut self, exec: &Exec, subject: &Subject<'_>, surroundings: &Surroundings) {
        let accounts = &surroundings.accounts;
        if let Some(facts) = &exec.file {
            let moment = |ns: i64| u64::try_from(ns).ok().map(Moment::on_this_host);
            self.exe_file = File {
                size: Some(facts.size),
                links: Some(facts.links),
                mode: Some(facts.permissions()),
                owner: Some(accounts.users.name(facts.uid).unwrap_or_else(|| facts.uid.to_string())),
                group: Some(accounts.groups.name(facts.gid).unwrap_or_else(|| facts.gid.to_string())),
                uid: Some(facts.uid),
                gid: Some(facts.gid),
                modified: moment(facts.modified_ns),
                changed: moment(facts.changed_ns),
                device: Some(facts.device),
                inode: Some(facts.inode),
                // Not made for the record: that would read every executable.
                sha256: exec.sha256.get().map(|digest| hexadecimal(digest)),
                package_managed: None,
            };
        }
        let managed = Field::find("exe.package-managed");
        self.exe_file.package_managed = match managed.as_ref().map(|field| subject.value(field)) {
            Some(Value::Flag(flag)) => Some(flag),
            _ => None,
        };
        self.identity_unknown = exec.details.unsettled.is_some();
        self.same_as = exec.details.identity.as_ref().map(|identity| {
            let path = match exec.image.exe() {
                Some(exe) if identity.at_its_place => exe,
                _ => identity.installed.path(),
            };
            let value = crate::alert::Recognition::of(exec).map_or(String::new(), |found| found.value);
            SameAs {
                utility: identity.installed.utility.to_string(),
                path: Bytes::new(path),
                by: identity.by,
                value,
                loaded: identity.loaded,
            }
        });
    }
}

/// What alerts show of a file, if all of it is known.
fn facts(file: &File) -> Option<FileFacts> {
    let ns = |moment: Option<Moment>| i64::try_from(moment?.ns).ok();
    Some(FileFacts {
        device: file.device?,
        inode: file.inode?,
        mode: REGULAR | (file.mode? & PERMISSIONS),
        links: file.links?,
        uid: file.uid?,
        gid: file.gid?,
        size: file.size?,
        modified_ns: ns(file.modified)?,
        changed_ns: ns(file.changed)?,
        mount: None,
    })
}
