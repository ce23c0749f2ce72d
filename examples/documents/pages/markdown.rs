//! As much of Markdown as the documentation here is written in, onto a page.

use super::roff::{Page, bold, inline};

/// What stands between two comments is another's to write: it is told the first comment's text, and says whether it did.
pub(super) type Fill<'f> = &'f mut dyn FnMut(&mut Page, &str) -> bool;

/// Writes `text`. Headings become sections from the level `##` on; what stands before the first heading is a description.
pub(super) fn write(page: &mut Page, text: &str, fill: Fill<'_>) {
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) {
            if fill(page, name) {
                let end = format!("<!-- end of {name} -->");
                // A place without an end is a place for something, and nothing has to be passed over.
                if text.contains(&end) {
                    lines.find(|line| *line == end);
                }
            }
        } else if let Some(title) = line.strip_prefix("#### ") {
            page.raw_paragraph(&bold(title));
        } else if let Some(title) = line.strip_prefix("### ") {
            page.subsection(title);
        } else if let Some(title) = line.strip_prefix("## ") {
            page.section(&title.to_uppercase());
        } else if line.starts_with("# ") {
            page.section("DESCRIPTION");
        } else if line.starts_with("```") {
            let code: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            page.code(&code);
        } else if let Some(first) = line.strip_prefix("    ") {
            let mut code = vec![first];
            while let Some(next) = lines.peek().and_then(|next| next.strip_prefix("    ")) {
                code.push(next);
                lines.next();
            }
            page.code(&code);
        } else if line.starts_with('|') {
            let mut rows = vec![line];
            while let Some(next) = lines.next_if(|next| next.starts_with('|')) {
                rows.push(next);
            }
            table(page, &rows);
        } else if let Some((mark, first)) = item(line) {
            let mut words = vec![first];
            while let Some(next) = lines.next_if(|next| next.starts_with("  ")) {
                words.push(next.trim());
            }
            page.item(mark, &words.join(" "));
        } else if !line.is_empty() {
            let mut words = vec![line];
            while let Some(next) = lines.next_if(|next| continues(next)) {
                words.push(next);
            }
            page.paragraph(&words.join(" "));
        }
    }
}

fn continues(line: &str) -> bool {
    !line.is_empty() && !line.starts_with(['#', '|', '<']) && !line.starts_with("```") && item(line).is_none()
}

/// Mark and text of a list's entry.
fn item(line: &str) -> Option<(&str, &str)> {
    let (mark, text) = line.split_once(' ')?;
    let numbered = mark.strip_suffix('.').is_some_and(|number| number.parse::<u8>().is_ok());
    (mark == "-" || numbered).then_some((mark, text))
}

/// A table becomes a list: the first column is the term, the others are what it means.
fn table(page: &mut Page, rows: &[&str]) {
    for row in rows.iter().skip(2) {
        let row = row.trim_matches('|').replace("\\|", "\u{0}");
        let mut cells = row.split('|').map(|cell| cell.trim().replace('\u{0}', "|"));
        let term = cells.next().unwrap_or_default();
        page.term(&inline(&term), &cells.collect::<Vec<_>>().join("; "));
    }
}
