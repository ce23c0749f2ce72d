//! The report of an incident: one page of HTML that needs nothing but itself, for reading, printing and keeping.
//!
//! In: a story, and raw records. Out: the page. Its script and style are those of the program, named by their hashes in the
//! page's content security policy, which allows nothing else: whatever got past [`page`]'s escapes would neither run nor
//! fetch anything. All data stands in the document; the script only hides, shows and places what is there, and without it
//! everything can be read.
//!
//! Promise: the size of the page is bounded, whatever the incident, and what was left out is said where it is missing.

mod markdown;
mod page;
mod picture;
mod tables;
mod timeline;

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::span::{self, Span};
use super::story::{Answer, Story, Sure};
use super::tree::{self, Tree};
use crate::rules::sigma::base64;
pub use markdown::markdown;
use page::Page;

/// Most processes that are shown.
pub const PROCESSES: usize = 400;
/// Most programs of these that are shown; each process has one at least.
pub const PROGRAMS: usize = 2_000;
/// Most moments in the timeline.
pub const MOMENTS: usize = 4_000;
/// Most rows of any other table, and answers to a question.
pub const ROWS: usize = 500;
/// Most raw records.
pub const RECORDS: usize = 500;
/// Most bytes of raw records.
pub const RECORD_BYTES: usize = 2 << 20;
/// Longest command in a table, longest moment, and longest other text, in bytes.
const COMMAND: usize = 600;
const MOMENT: usize = 400;
const ARGUMENT: usize = 160;
const SENTENCE: usize = 1_000;
/// Longest answer to a question, in bytes; what it names is told in full further below.
const ANSWER: usize = 400;
/// Longest raw record, and longest line of a rule, in bytes.
const RECORD: usize = 16 << 10;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// What is shown of the processes, for references to them.
struct Shown<'s> {
    tree: Tree<'s>,
    /// Process ids by key, and whether the process has a row to point to.
    pids: HashMap<u32, (u32, bool)>,
}

impl<'s> Shown<'s> {
    fn of(story: &'s Story) -> Shown<'s> {
        let tree = tree::tree(&story.processes, PROCESSES);
        let mut pids: HashMap<u32, (u32, bool)> =
            story.processes.iter().map(|process| (process.key, (process.pid, false))).collect();
        pids.extend(tree.rows.iter().map(|row| (row.process.key, (row.process.pid, true))));
        Shown { tree, pids }
    }

    /// A process by its key, with a link to its row if it has one.
    fn process(&self, page: &mut Page, key: u32) {
        match self.pids.get(&key) {
            Some((pid, true)) => page.raw("<a href=\"#p").number(key).raw("\">").number(*pid).raw("</a>"),
            Some((pid, false)) => page.number(*pid),
            None => page.raw("unknown"),
        };
    }
}

/// The page about a story; `records` are the records it was made from, a JSON line each.
pub fn html(story: &Story, records: &[String]) -> String {
    let mut page = Page::default();
    let shown = Shown::of(story);
    let span = Span::of(story);
    head(&mut page, story);
    page.raw("<body data-from=\"")
        .number(span.from_ns / 1_000_000)
        .raw("\" data-length=\"")
        .place(span.length());
    page.raw("\"><a class=\"skip\" href=\"#questions\">To the four questions</a>");
    summary(&mut page, story);
    page.raw("<main>");
    cut(&mut page, story);
    questions(&mut page, story);
    tables::commands(&mut page, story);
    page.raw("<div>");
    timeline::controls(&mut page);
    page.raw("<section id=\"processes\"><h2>Processes</h2>");
    picture::legend(&mut page);
    picture::draw(&mut page, &shown.tree, span);
    tables::left_out(&mut page, shown.tree.left_out, "processes are not shown here");
    tables::processes(&mut page, &shown.tree);
    page.raw("</section><section id=\"timeline\"><h2>Timeline</h2>");
    let chosen = span::choose(&story.timeline, MOMENTS);
    timeline::lanes(&mut page, &chosen, span);
    if let Some(sentence) = chosen.sentence() {
        page.raw("<p class=\"missing\">").plain_text(&sentence, SENTENCE).raw(".</p>");
    }
    timeline::table(&mut page, &chosen, span, &shown);
    page.raw("</section></div>");
    tables::tools(&mut page, story);
    tables::remotes(&mut page, story, &shown);
    tables::files(&mut page, story);
    tables::rules(&mut page, story);
    tables::records(&mut page, records);
    page.raw("</main><footer><p>Made by execwatch. Text in <code>this font</code> is as the programs wrote it, from left \
         to right; <code><i>\\x1b</i></code> with a mark like this stands for what cannot be shown. All times are in UTC.</p>\
         </footer><script>")
        .raw(SCRIPT)
        .raw("</script></body></html>\n");
    page.into_markup()
}

/// A source of the content security policy that allows one text only.
fn hash(text: &str) -> String {
    format!("'sha256-{}'", base64(&Sha256::digest(text)))
}

fn head(page: &mut Page, story: &Story) {
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; base-uri 'none'; form-action 'none'",
        hash(SCRIPT),
        hash(STYLE)
    );
    page.raw("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"Content-Security-Policy\"");
    page.attribute("content", &policy, SENTENCE);
    page.raw(
        "><meta name=\"referrer\" content=\"no-referrer\"><meta name=\"color-scheme\" content=\"light dark\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>Incident ",
    );
    page.plain_text(&story.incident.id, ARGUMENT).raw(" on ").plain_text(&story.incident.host, ARGUMENT);
    page.raw("</title><style>").raw(STYLE).raw("</style></head>\n");
}

fn summary(page: &mut Page, story: &Story) {
    let incident = &story.incident;
    page.raw("<header><p class=\"eyebrow\">Incident ")
        .code(&incident.id, ARGUMENT)
        .raw(" on ")
        .code(&incident.host, ARGUMENT);
    page.raw("</p><h1><span class=\"t\">")
        .text(&incident.title, SENTENCE)
        .raw("</span></h1><p class=\"tags\">");
    picture::badge(page, incident.severity);
    page.raw("<span class=\"tag\">").raw(incident.state.as_str()).raw("</span>");
    if let Some(verdict) = incident.verdict {
        page.raw("<span class=\"tag\">").raw(verdict.as_str()).raw("</span>");
    }
    page.raw("</p>");
    if let Some(note) = &incident.note {
        page.raw("<blockquote><span class=\"t\">").text(note, SENTENCE).raw("</span></blockquote>");
    }
    page.raw("<dl class=\"figures\">");
    let mut figure = |name: &'static str, value: &str| {
        page.raw("<div><dt>")
            .raw(name)
            .raw("</dt><dd><span class=\"t\">")
            .text(value, ARGUMENT)
            .raw("</span></dd></div>");
    };
    figure("First alert", &span::moment(&incident.first));
    figure("Last alert", &span::moment(&incident.last));
    if let Some(length) = span::length(story) {
        figure("From first to last", &length);
    }
    figure("Alerts", &incident.alerts.to_string());
    figure("Programs executed", &incident.execs.to_string());
    if let Some(user) = &incident.user {
        figure("User", user);
    }
    if let Some(place) = &incident.place {
        figure("Where", place);
    }
    page.raw("<div><dt>Score</dt><dd>").number(incident.score.min(100));
    page.raw(" of 100 <meter min=\"0\" max=\"100\" low=\"40\" high=\"70\" optimum=\"0\" aria-label=\"Score\" value=\"")
        .number(incident.score.min(100));
    page.raw("\"></meter></dd></div></dl><nav aria-label=\"Parts of the report\"><a href=\"#questions\">Questions</a>\
         <a href=\"#processes\">Processes</a><a href=\"#timeline\">Timeline</a><a href=\"#tools\">Tools</a>\
         <a href=\"#remotes\">Remotes</a><a href=\"#files\">Files</a><a href=\"#rules\">Rules</a>\
         <a href=\"#records\">Records</a></nav></header>");
}

/// What the story itself does not have.
fn cut(page: &mut Page, story: &Story) {
    if story.cut.is_empty() {
        return;
    }
    page.raw("<p class=\"missing\">Not kept, for there was too much of it: ");
    for (number, cut) in story.cut.iter().take(ROWS).enumerate() {
        page.raw(if number > 0 { ", " } else { "" })
            .number(cut.count)
            .raw(" ")
            .plain_text(&cut.what, ARGUMENT);
    }
    page.raw(".</p>");
}

fn questions(page: &mut Page, story: &Story) {
    page.raw("<section id=\"questions\"><h2>The four questions</h2><div class=\"cards\">");
    question(page, "Who, and is it normal?", &story.who);
    question(page, "Can it be contained?", &story.contain);
    question(page, "What else belongs to it?", &story.what_else);
    question(page, "What was the way in?", &story.way_in);
    page.raw("</div></section>");
}

fn question(page: &mut Page, title: &'static str, answers: &[Answer]) {
    page.raw("<article class=\"card\"><h3>").raw(title).raw("</h3>");
    if answers.is_empty() {
        page.raw("<p class=\"nothing\">Nothing is known.</p>");
    } else {
        page.raw("<dl class=\"answers\">");
        for answer in answers.iter().take(ROWS) {
            page.raw("<div><dt>").plain_text(&answer.what, ARGUMENT).raw("</dt><dd><span class=\"t\">");
            page.text(&answer.answer, ANSWER).raw("</span> <span class=\"sure ");
            page.raw(answer.sure.as_str()).raw("\">").raw(sign(answer.sure)).raw(answer.sure.as_str());
            page.raw(" <span class=\"source\">")
                .plain_text(&answer.source, ARGUMENT)
                .raw("</span></span></dd></div>");
        }
        page.raw("</dl>");
    }
    tables::left_out(page, answers.len().saturating_sub(ROWS), "more answers are not shown here");
    page.raw("</article>");
}

/// A filled, a half and an empty circle.
fn sign(sure: Sure) -> &'static str {
    match sure {
        Sure::Known => "<span aria-hidden=\"true\">\u{25cf} </span>",
        Sure::Likely => "<span aria-hidden=\"true\">\u{25d0} </span>",
        Sure::Unknown => "<span aria-hidden=\"true\">\u{25cb} </span>",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_and_style_can_stand_in_the_page() {
        assert!(!SCRIPT.contains("</") && !SCRIPT.contains("<!--"));
        assert!(!STYLE.contains('<'));
        // Nothing is fetched, and nothing is made of text.
        for word in
            ["fetch(", "XMLHttp", "import", "innerHTML", "insertAdjacent", "document.write", "eval(", "http"]
        {
            let allowed = word == "http" && SCRIPT.contains("http://www.w3.org/2000/svg");
            let count = SCRIPT.matches(word).count();
            assert!(count == 0 || (allowed && count == 1), "{word}");
        }
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
    }

    #[test]
    fn hashes_are_as_browsers_compute_them() {
        // From the example in Content Security Policy Level 3.
        assert_eq!(hash("alert('Hello, world.');"), "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='");
    }
}
