//! The report of an incident in headless Chromium: no error, nothing fetched, everything to be seen, and the filter works.
//!
//! Skipped visibly where there is no Chromium; `EXECWATCH_TESTS_REQUIRE_BROWSER=1` turns that into a failure. Debian's
//! package is `chromium-headless-shell`.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use execwatch::incident::report;
use execwatch::incident::story::Story;
use serde_json::{Value, json};

/// How long anything is waited for: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(90);
/// Where a Chromium may be.
const PROGRAMS: [&str; 4] = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];

/// A browser with one page, spoken to by the DevTools protocol over its pipe.
struct Browser {
    child: Child,
    to: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    last_id: u64,
    /// What it told without being asked.
    events: Vec<Value>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// `None`: the test is skipped, which has been said.
    fn start() -> Option<Browser> {
        let found = |name: &&str| {
            Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
        };
        let Some(program) = PROGRAMS.into_iter().find(found) else {
            let required = std::env::var_os("EXECWATCH_TESTS_REQUIRE_BROWSER").is_some();
            assert!(!required, "no Chromium is installed");
            support::skip("needs Chromium");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        // The protocol is spoken on the descriptors 3 and 4.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null", program])
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--remote-debugging-pipe",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut message = Vec::new();
            while from.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                message.pop_if(|last| *last == 0);
                if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let (session, events) = (None, Vec::new());
        let mut browser = Browser { child, to, messages, session, last_id: 0, events, _profile: profile };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.ask("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    fn next(&mut self, what: &str, begin: Instant) -> Value {
        let left = DEADLINE.saturating_sub(begin.elapsed());
        self.messages.recv_timeout(left).unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let mut request = json!({ "id": self.last_id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            request["sessionId"] = session.as_str().into();
        }
        self.to.write_all(format!("{request}\0").as_bytes()).unwrap();
        let begin = Instant::now();
        loop {
            let message = self.next(method, begin);
            if message["id"] == self.last_id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    /// Opens a file, until it has been loaded.
    fn open(&mut self, path: &Path) {
        self.ask("Page.navigate", json!({ "url": format!("file://{}", path.display()) }));
        let begin = Instant::now();
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let message = self.next("loading", begin);
            self.events.push(message);
        }
    }

    /// The value of an expression.
    fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.ask("Runtime.evaluate", parameters);
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    fn number(&mut self, expression: &str) -> f64 {
        self.value(expression).as_f64().unwrap_or_else(|| panic!("{expression} is no number"))
    }

    /// Messages of a kind, of those that came until now.
    fn told(&self, method: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["method"] == method).collect()
    }

    fn mouse(&mut self, kind: &str, x: f64, y: f64) {
        let parameters =
            json!({ "type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1 });
        self.ask("Input.dispatchMouseEvent", parameters);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Moments in the table that are seen.
const SHOWN: &str = "document.querySelectorAll('#moments tbody tr:not([hidden])').length";

/// How far apart things stand that are drawn by time, for each millisecond.
const SCALE: &str = r"(() => {
    const seen = [...document.querySelectorAll('.plot [data-at]')]
        .map((mark) => [Number(mark.dataset.at), Number(mark.getAttribute('transform').match(/[\d.-]+/)[0])])
        .filter(([, x]) => x > 0 && x < 710).sort(([one], [other]) => one - other);
    const [first, last] = [seen[0], seen[seen.length - 1]];
    return Math.round((last[1] - first[1]) / (last[0] - first[0]) * 1e6);
})()";

/// Sets a field as typing does.
fn set(field: &str, value: &str) -> String {
    format!(
        "(() => {{ const field = document.querySelector({field:?}); field.value = {value:?};
            field.dispatchEvent(new Event('input', {{ bubbles: true }})); }})()"
    )
}

/// The lowest contrast of text with what is behind it, and the text.
const CONTRAST: &str = r"(() => {
    const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
    const light = (colour) => {
        const [red, green, blue] = channels(colour).map((value) => {
            const part = value / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if ((channels(colour)[3] ?? 1) > 0) return colour;
        }
        return 'rgb(255, 255, 255)';
    };
    let lowest = [99, ''];
    for (const element of document.body.querySelectorAll('*')) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!own || element.closest('script, title, option')) continue;
        const style = getComputedStyle(element);
        const [one, other] = [light(element.ownerSVGElement ? style.fill : style.color), light(behind(element))];
        const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (contrast < lowest[0]) lowest = [contrast, element.outerHTML.slice(0, 100)];
    }
    return lowest;
})()";

#[test]
fn the_report_in_a_browser() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/incident");
    let story: Story =
        serde_json::from_str(&std::fs::read_to_string(golden.join("webshell.json")).unwrap()).unwrap();
    let records = std::fs::read_to_string(golden.join("webshell.records")).unwrap();
    let records: Vec<String> = records.lines().map(str::to_owned).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    std::fs::write(&path, report::html(&story, &records)).unwrap();
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&path);

    // The tree and the timeline are there, and are seen.
    for (selector, least) in [("#tree", 300.0), ("#lanes", 100.0), ("#moments", 500.0), ("#controls", 20.0)] {
        let height =
            browser.number(&format!("document.querySelector('{selector}').getBoundingClientRect().height"));
        assert!(height >= least, "{selector}: {height}");
    }
    assert_eq!(
        browser.number("document.querySelectorAll('#tree .bar').length"),
        story.processes.len() as f64
    );
    assert_eq!(browser.number("document.querySelectorAll('#tree .mark').length"), 8.0);
    let all = story.timeline.len() as f64;
    assert_eq!(browser.number(SHOWN), all);

    // What is hostile is text.
    assert_eq!(browser.number("document.scripts.length"), 1.0);
    assert_eq!(browser.number("document.images.length"), 0.0);
    for text in ["<script>alert(document.domain)</script>", "\\x1b[2J\\x1b]0;owned\\x07\\u{202e}gpj.txt\\x00"]
    {
        let found = browser.value(&format!("document.body.textContent.includes({})", json!(text)));
        assert_eq!(found, true, "{text}");
    }

    filters(&mut browser, all);
    zooms(&mut browser, all);
    looks(&mut browser);
    prints(&mut browser);

    // Until here nothing went wrong, and nothing was fetched but the page.
    for method in [
        "Runtime.exceptionThrown",
        "Runtime.consoleAPICalled",
        "Log.entryAdded",
        "Page.javascriptDialogOpening",
    ] {
        assert_eq!(browser.told(method), Vec::<&Value>::new(), "{method}");
    }
    let fetched: Vec<&Value> = browser
        .told("Network.requestWillBeSent")
        .iter()
        .map(|event| &event["params"]["request"]["url"])
        .collect();
    assert_eq!(fetched, [&json!(format!("file://{}", path.display()))]);
    allows_nothing(&mut browser);
}

fn filters(browser: &mut Browser, all: f64) {
    browser.value(&set("#words", "CRONTAB"));
    assert_eq!(browser.number(SHOWN), 2.0);
    assert_eq!(browser.value("document.querySelector('#count').textContent"), format!("2 of {all} moments"));
    browser.value(&set("#words", "crontab changed"));
    assert_eq!(browser.number(SHOWN), 1.0);
    browser.value(&set("#words", ""));
    browser.value(&set("#severity", "4"));
    assert_eq!(browser.number(SHOWN), 1.0);
    browser.value(&set("#severity", "-1"));
    browser.value("document.querySelectorAll('#kinds input').forEach((box) => { if (box.value !== 'connection') box.click(); })");
    assert_eq!(browser.number(SHOWN), 3.0);
    browser.value("document.querySelectorAll('#kinds input').forEach((box) => { if (box.value !== 'connection') box.click(); })");
    assert_eq!(browser.number(SHOWN), all);
}

fn zooms(browser: &mut Browser, all: f64) {
    let whole = browser.number(SCALE);
    browser.value("document.querySelector('[data-do=in]').click()");
    assert!((browser.number(SCALE) / whole - 2.0).abs() < 0.01);
    assert!(browser.number(SHOWN) < all);
    browser.value("document.querySelector('[data-do=all]').click()");
    assert_eq!((browser.number(SCALE), browser.number(SHOWN)), (whole, all));

    // With the keyboard.
    browser.value("document.querySelector('#lanes').focus()");
    for (key, text) in [("+", "+"), ("ArrowRight", "")] {
        browser.ask("Input.dispatchKeyEvent", json!({ "type": "keyDown", "key": key, "text": text }));
    }
    assert!((browser.number(SCALE) / whole - 2.0).abs() < 0.01);
    browser.ask("Input.dispatchKeyEvent", json!({ "type": "keyDown", "key": "0", "text": "0" }));
    assert_eq!((browser.number(SCALE), browser.number(SHOWN)), (whole, all));

    // With the mouse: the second quarter of the time.
    browser.value("document.querySelector('#lanes').scrollIntoView()");
    let plot = browser.value(
        "(() => { const box = document.querySelector('#lanes .plot').getBoundingClientRect();
            return [box.x, box.y, box.width, box.height]; })()",
    );
    let of = |number: usize| plot[number].as_f64().unwrap();
    let middle = of(1) + of(3) / 2.0;
    browser.mouse("mousePressed", of(0) + of(2) / 4.0, middle);
    browser.mouse("mouseMoved", of(0) + of(2) / 3.0, middle);
    browser.mouse("mouseMoved", of(0) + of(2) / 2.0, middle);
    browser.mouse("mouseReleased", of(0) + of(2) / 2.0, middle);
    assert!((browser.number(SCALE) / whole - 4.0).abs() < 0.1);
    browser.value("document.querySelector('[data-do=all]').click()");
}

fn looks(browser: &mut Browser) {
    browser.value("document.querySelectorAll('details').forEach((details) => { details.open = true; })");
    for scheme in ["light", "dark"] {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        browser.ask("Emulation.setEmulatedMedia", json!({ "features": features }));
        // What WCAG asks for at its level AA.
        let contrast = browser.value(CONTRAST);
        assert!(contrast[0].as_f64().unwrap() >= 4.5, "{scheme}: {contrast}");
    }
    browser.value("document.querySelectorAll('details').forEach((details) => { details.open = false; })");
    // In a narrow window nothing but pictures and tables is wider than the window.
    let narrow = json!({ "width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": false });
    browser.ask("Emulation.setDeviceMetricsOverride", narrow);
    assert!(browser.number("document.documentElement.scrollWidth") <= 360.0);
    browser.ask("Emulation.clearDeviceMetricsOverride", json!({}));
}

fn prints(browser: &mut Browser) {
    browser.value(
        "addEventListener('beforeprint', () => { window.closed_on_paper = document.querySelectorAll('details:not([open])').length; })",
    );
    browser.value(&set("#words", "crontab"));
    let pdf = browser.ask("Page.printToPDF", json!({}));
    assert!(pdf["data"].as_str().unwrap().len() > 10_000);
    assert_eq!(browser.number("window.closed_on_paper"), 0.0);
    assert!(browser.number("document.querySelectorAll('details:not([open])').length") > 0.0);
    browser.value(&set("#words", ""));
}

/// The policy stops what would get past the escapes.
fn allows_nothing(browser: &mut Browser) {
    browser.value(
        "(() => { const script = document.createElement('script'); script.textContent = 'window.ran = 1';
            document.body.append(script);
            const image = document.createElement('img'); image.setAttribute('onerror', 'window.ran = 1'); image.src = 'x';
            document.body.append(image); })()",
    );
    let fetched = browser.value("fetch(location.href).then(() => 'fetched', () => 'refused')");
    assert_eq!(fetched, "refused");
    assert_eq!(browser.value("window.ran === undefined"), true);
    let styled = "(() => { document.body.setAttribute('style', 'color: rgb(1, 2, 3)'); return getComputedStyle(document.body).color; })()";
    assert_ne!(browser.value(styled), "rgb(1, 2, 3)");
    assert!(browser.told("Log.entryAdded").len() >= 3, "the policy is silent");
}
