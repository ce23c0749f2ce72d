//! execwatch sees every program that a Linux host executes, knows a network utility when it sees one, and tells who ran
//! it and from where. Its only kernel interfaces are the netlink process connector and /proc.
//!
//! The modules are the stages of an event's way, in this order; each is a folder or a file, and data goes one way:
//!
//! - [`connector`]: events from the kernel, one real-time listener per CPU
//! - [`process`]: what /proc says about the program, read while it is held
//! - [`identity`]: which utility the file is, whatever it is called
//! - [`lineage`]: the process table: where a program comes from
//! - [`rules`]: whether a rule matches, and which utility it is
//! - [`response`]: what is done about it, for some rules while the program is held
//! - [`baseline`]: whether that is normal here
//! - [`evaluate`]: from an exec through rules, exceptions, thresholds and baseline to its alert
//! - [`alert`]: the record and its forms
//! - [`fold`]: repeats and floods of alerts become one record each
//! - [`followup`]: what the program did after its alert
//! - [`incident`]: alerts that belong together become one story
//! - [`journal`]: every record written down before it is sent
//! - [`output`]: syslog, file, standard output
//! - [`seen`]: what was evaluated already
//! - [`worker`]: the thread that leads from the queue through rules and alert to the outputs
//!
//! Beside them:
//!
//! - [`event`]: an exec written down; [`replay`]: records of the past as events; [`self_test`]: tests of rules as data
//! - [`config`]: the configuration file
//! - [`daemon`]: starts and stops the parts; [`harden`]: what it gives up; [`exit`]: exit codes
//! - [`control`]: answers administrators while it runs; [`health`]: what is counted
//! - [`doctor`]: what the host gives and lacks
//! - [`cli`]: the command line
//! - [`document`] and [`diagnostics`]: files are read strictly, and mistakes are shown; [`trust`]: whether they are
//!   root's alone
//! - [`order`]: sorting that costs little of the program; [`published`]: how something reaches the listeners without a wait
//! - [`calendar`] and [`clock`]: the time; [`sys`]: the only unsafe code

pub mod alert;
pub mod baseline;
pub mod calendar;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connector;
pub mod control;
pub mod cpus;
pub mod daemon;
pub mod database;
pub mod diagnostics;
pub mod doctor;
pub mod document;
pub mod evaluate;
pub mod event;
pub mod exit;
pub mod fold;
pub mod followup;
#[doc(hidden)]
pub mod fuzzing;
pub mod harden;
pub mod health;
pub mod identity;
pub mod incident;
pub mod journal;
pub mod lineage;
pub mod order;
pub mod output;
pub mod process;
pub mod published;
pub mod replay;
pub mod response;
pub mod rules;
pub mod seen;
pub mod self_test;
pub mod sys;
pub mod trust;
pub mod worker;
