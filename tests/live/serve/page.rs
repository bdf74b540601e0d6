//! The page, in a real browser.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::Served;
use super::access::Files;
use crate::clients::LIBRARIES;
use crate::harness::wait_until;
use crate::scene::SOON;
use crate::support::events::field;

/// A browser with one page.
pub struct Browser {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Browser {
    fn start() -> Self {
        let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/browser.mjs");
        let mut command = Command::new("node");
        command.arg(driver).arg(&*LIBRARIES).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("node; tests/run gets it");
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output: BufReader::new(output) }
    }

    /// Runs JavaScript with `page`, `open`, `check` and `seen`, and returns its result.
    fn run(&mut self, script: &str) -> Value {
        writeln!(self.input, "{}", json!(script.replace('\n', " "))).unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("no browser (tests/run gets chromium): {line:?}"));
        assert!(told["error"].is_null(), "{script}: {}\n{}", told["error"], told["text"]);
        told["value"].clone()
    }

    fn open(&mut self, url: &str, options: &Value) {
        self.run(&format!("await open({}, {options})", json!(url)));
    }

    /// Waits until the page shows a text.
    fn sees(&mut self, text: &str) {
        self.run(&format!(
            "await page.getByText({}, {{ exact: true }}).first().waitFor()",
            json!(text)
        ));
    }

    /// Chooses a view, and waits until it is shown.
    fn turns_to(&mut self, view: &str) {
        let tab = format!("page.getByRole('link', {{ name: '{view}' }})");
        self.run(&format!(
            "await {tab}.click(); await {tab}.and(page.locator('[aria-current=page]')).waitFor()"
        ));
    }

    /// Checks the accessibility of what the page shows now.
    fn is_accessible(&mut self, what: &str) {
        assert_eq!(self.run("return await check()"), json!([]), "{what}");
    }

    /// Checks that nothing went wrong so far, no other host was contacted, and no URL contained a secret.
    fn behaved(&mut self, served: &Served, secrets: &[&str]) {
        assert_eq!(self.run("return seen.problems"), json!([]));
        let addresses = self.run("return seen.addresses");
        let own = format!("http://{}/", served.client.address);
        for address in addresses.as_array().unwrap() {
            let address = address.as_str().unwrap();
            assert!(address.starts_with(&own), "{address}");
            assert!(!secrets.iter().any(|secret| address.contains(secret)), "{address}");
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn url(served: &Served) -> String {
    format!("http://{}/", served.client.address)
}

/// Any entry, as a producer writes it.
fn add_raw(served: &Served, kind: &str, user: &str) {
    served.scene.add(&[field("type", kind), field("user", user)]);
}

const VIEWS: [&str; 8] =
    ["Online", "Events", "Changes", "Sessions", "Documents", "Views", "Dead letters", "Health"];

const NARROW: &str = "return document.documentElement.scrollWidth <= 360";

#[test]
fn the_page_shows_what_happens_and_goes_on_after_a_break() {
    let mut served = Served::start(&[("thresholds", "2:1")], &[]);
    let _janitor = served.scene.janitor(&[]);
    let mut browser = Browser::start();
    browser.open(&url(&served), &json!({}));
    browser.sees("Live");
    browser.sees("Nobody is online.");
    served.add(&json!([
        {"type": "heartbeat", "user": "alice", "ip": "203.0.113.7", "page": "/pricing", "sid": "s1"},
        {"type": "document", "user": "alice", "doc": "plan", "action": "join"},
        {"type": "document", "user": "bob", "doc": "plan", "action": "join"},
        {"type": "view", "user": "alice", "token": "tk_secret", "item": "desk-lamp"},
    ]));
    browser.sees("alice");
    browser.sees("/pricing");
    browser.turns_to("Events");
    wait_until(SOON, "an event is shown", || {
        served
            .add(&json!([{"type": "view", "user": "alice", "token": "tk_secret", "item": "lamp"}]));
        browser.run("return await page.getByText('lamp', { exact: true }).count()") != json!(0)
    });
    browser.run("await page.getByLabel('Filter by type, name').fill('document')");
    browser.sees("No event matches this filter.");
    browser.turns_to("Changes");
    browser.sees("threshold reached");
    browser.turns_to("Documents");
    browser.sees("2 reached");
    browser.turns_to("Views");
    browser.sees("desk-lamp");
    browser.turns_to("Health");
    browser.sees("Events arrive, a worker applies them, and a janitor cleans up.");

    // Among many sessions of others, a page may be empty before the last.
    browser.run(
        "let first = true;
        await page.route('**/api/v1/sessions?*', (route) => {
            if (!first) return route.continue();
            first = false;
            return route.fulfill({ json: { now_ms: 0, items: [], cursor: 'w1.0.0.0' } });
        })",
    );
    browser.run(
        "await page.getByLabel('Find a user').fill('alice'); await page.keyboard.press('Enter')",
    );
    browser.sees("Online now.");
    browser.sees("Sessions (1)");
    browser.sees("session started");
    browser.run("await page.locator('#panel dt', { hasText: 'Since' }).locator('xpath=following-sibling::dd[1]').getByText(/^[0-9:]+$/).waitFor()");
    browser.run("await page.keyboard.press('Escape')");
    browser.turns_to("Sessions");
    browser.run("await page.getByRole('button', { name: 'End session s1' }).click(); await page.getByText('Sure?').click()");
    browser.sees("There is no session.");

    let at = served.client.address.to_string();
    served.serve.kill();
    browser.run("await page.getByText(/^Reconnecting since/).waitFor()");
    served.scene.add_heartbeat("carol");
    served.serve = served.scene.serve(&["--listen", &at]);
    browser.sees("Live");
    browser.turns_to("Online");
    browser.sees("carol");
    served.scene.deployment.server.kill();
    browser.run("await page.getByText(/^As of/).waitFor()");
    browser.run("await page.getByText(/^The state cannot be read/).first().waitFor()");
    served.scene.deployment.server.restart().unwrap();
    browser.sees("Live");
    browser.behaved(&served, &["tk_secret"]);
}

#[test]
fn the_page_can_be_used_by_everybody_and_shows_names_as_they_are() {
    let served = Served::start(&[], &[]);
    let names = ["<img src=x onerror=alert(1)>", "\"'&amp;\n{}", "\u{202e}עברית", ".."];
    let events = names.map(|user| {
        json!([{"type": "heartbeat", "user": user, "ip": "::1", "page": user, "sid": user},
            {"type": "document", "user": user, "doc": user, "action": "join"}])
    });
    events.iter().for_each(|events| served.add(events));
    add_raw(&served, names[0], names[1]);
    let mut browser = Browser::start();
    for scheme in ["light", "dark"] {
        let options = json!({"colorScheme": scheme, "viewport": {"width": 360, "height": 740}});
        browser.open(&url(&served), &options);
        browser.sees(names[0]);
        for view in VIEWS {
            browser.turns_to(view);
            browser.is_accessible(&format!("{view}, {scheme}"));
            assert_eq!(
                browser.run(&format!("return await page.evaluate(() => {{ {NARROW} }})")),
                json!(true),
                "{view}"
            );
        }
        browser.turns_to("Online");
        browser.run("await page.locator('#online .link').first().focus(); await page.keyboard.press('Enter')");
        browser.sees("Online now.");
        browser.is_accessible(&format!("a user, {scheme}"));
        browser.run("await page.keyboard.press('Escape')");
        browser.turns_to("Dead letters");
        browser.run(
            "await page.locator('#dead .link').first().focus(); await page.keyboard.press('Enter')",
        );
        browser.sees("The entry");
        browser.is_accessible(&format!("a dead letter, {scheme}"));
    }
    assert_eq!(browser.run("return await page.locator('#online .link').count()"), json!(4));
    assert_eq!(browser.run("return await page.locator('main img').count()"), json!(0));
    // No worker runs, and the page says so.
    browser.run("await page.keyboard.press('Escape')");
    browser.run("await page.getByText(/No janitor has run/).first().waitFor()");
    browser.behaved(&served, &[]);
}

#[test]
fn dead_letters_are_mended_tried_again_and_dropped() {
    let served = Served::start(&[], &[]);
    for user in ["alice", "bob", "carol"] {
        add_raw(&served, "hartbeat", user);
    }
    add_raw(&served, "view", "dave");
    let mut browser = Browser::start();
    browser.open(&url(&served), &json!({}));
    browser.turns_to("Dead letters");
    browser.run("await page.locator('#dead .link').nth(3).waitFor()");
    browser.sees("4 in all");
    // One, fixed and retried.
    let press = |browser: &mut Browser, name: &str, question: &str| {
        let button = format!("page.getByRole('button', {{ name: '{name}', exact: true }})");
        browser.run(&format!("await {button}.click()"));
        let question = format!("page.getByRole('button', {{ name: '{question}', exact: true }})");
        browser.run(&format!("await {question}.click()"));
    };
    let opens = |browser: &mut Browser, text: &str| {
        let row = format!("page.locator('#dead .row', {{ hasText: '{text}' }})");
        browser.run(&format!("await {row}.first().locator('.link').click()"));
    };
    opens(&mut browser, "hartbeat");
    browser.run("await page.getByLabel('Set a field first').fill('type')");
    browser.run("await page.getByRole('textbox', { name: 'to', exact: true }).fill('logn')");
    press(&mut browser, "Retry", "It will fail again (unknown type). Retry?");
    browser.sees("1 added to the stream again; failing again: 1 unknown type.");
    browser.sees("4 in all");
    opens(&mut browser, "logn");
    browser.run("await page.getByLabel('Set a field first').fill('type')");
    browser.run("await page.getByRole('textbox', { name: 'to', exact: true }).fill('heartbeat')");
    browser.run("await page.getByRole('button', { name: 'Retry', exact: true }).click()");
    browser.sees("1 added to the stream again.");
    browser.sees("3 in all");
    browser.turns_to("Online");
    browser.sees("carol");
    // One, dropped; then those with one reason, and the rest.
    browser.turns_to("Dead letters");
    opens(&mut browser, "hartbeat");
    press(&mut browser, "Drop", "Drop for good?");
    browser.sees("2 in all");
    browser.run("await page.locator('#dead-reason').selectOption('missing_field')");
    browser.run("await page.locator('#dead .link').nth(1).waitFor({ state: 'detached' })");
    press(&mut browser, "Retry all", "Retry 1? 1 will fail again.");
    browser.sees("1 added to the stream again; failing again: 1 missing field.");
    browser.run("await page.locator('#dead-reason').selectOption('')");
    browser.run("await page.locator('#dead .link').nth(1).waitFor()");
    press(&mut browser, "Drop all", "Drop 2 for good?");
    browser.sees("There is no dead letter.");
    browser.behaved(&served, &[]);
}

#[test]
fn the_page_takes_a_token_and_shows_what_it_may() {
    let served = Files::new().serve(&[]);
    let session = r#"{"type":"session","sid":"s1","user":"alice"}"#;
    let added = served.client.bearer("both").post("/api/v1/events?wait=20s", session);
    assert_eq!(added.status, 200, "{added:?}");
    add_raw(&served, "logn", "alice");
    let mut browser = Browser::start();
    browser.open(&url(&served), &json!({}));
    let sign_in = |browser: &mut Browser, token: &str| {
        browser.run(&format!(
            "await page.getByRole('textbox', {{ name: 'Token' }}).fill('{token}'); await page.keyboard.press('Enter')"
        ));
    };
    sign_in(&mut browser, "wrong");
    browser.sees("This token is unknown or no longer valid.");
    browser.is_accessible("sign in");
    let buttons = "return await page.getByRole('button', { name: 'End session s1' }).count()";
    for (token, count) in [("reader", 0), ("both", 1)] {
        sign_in(&mut browser, token);
        browser.sees("Live");
        browser.turns_to("Sessions");
        browser.sees("s1");
        assert_eq!(browser.run(buttons), json!(count), "{token}");
        browser.turns_to("Dead letters");
        browser.run("await page.locator('#dead .link').waitFor()");
        assert_eq!(
            browser.run("return await page.locator('#dead-drop:visible').count()"),
            json!(count)
        );
        assert_eq!(browser.run("return await page.evaluate(() => document.cookie)"), json!(""));
        browser.run("await page.getByRole('button', { name: 'Sign out' }).click()");
        browser.sees("Sign in");
    }
    browser.behaved(&served, &["reader", "both"]);
}

#[test]
fn the_page_works_below_a_path_of_a_proxy() {
    let served = Served::start(&[], &[]);
    let mut browser = Browser::start();
    browser.open(&url(&served), &json!({}));
    // A proxy that strips its path.
    browser.run("await page.route(/[/]below[/]/, (route) => route.continue({ url: route.request().url().replace('/below/', '/') }))");
    browser.run(&format!("await page.goto('{}below/')", url(&served)));
    browser.run("seen.addresses.length = 0; await page.reload()");
    browser.sees("Live");
    served.scene.add_heartbeat("alice");
    browser.sees("alice");
    let addresses = browser.run("return seen.addresses.filter((one) => !one.includes('/below/'))");
    assert_eq!(addresses, json!([]), "an address that leaves the path");
    browser.behaved(&served, &[]);
}

#[test]
fn the_page_s_files_are_asked_for_again_and_sent_once() {
    let served = Served::without_worker(rollcall::private_server::Options::default(), &[]);
    let reply = served.client.get("/page/main.js");
    assert_eq!(
        (reply.status, reply.headers["content-type"].as_str()),
        (200, "text/javascript; charset=utf-8")
    );
    assert!(reply.headers["content-security-policy"].contains("default-src 'none'"), "{reply:?}");
    let known = served.client.with("If-None-Match", &reply.headers["etag"]).get("/page/main.js");
    assert_eq!((known.status, known.body.len()), (304, 0));
    assert_eq!(served.client.get("/page/other.js").status, 404);
    assert!(served.client.get("/").body.starts_with("<!doctype html>"));
}

/// The default form is small. The long form, with the figures of PERFORMANCE.md, is `ROLLCALL_TEST_LOAD=long cargo
/// test --test live serve::page::many -- --nocapture`.
#[test]
fn many_people_and_changes_are_all_shown() {
    let is_long = std::env::var("ROLLCALL_TEST_LOAD").is_ok_and(|form| form == "long");
    let (users, changes_per_tick, ticks) =
        if is_long { (10_000, 50, 100) } else { (1_000, 20, 20) };
    let served = Served::start(&[], &[]);
    for first in (0..users).step_by(500) {
        let heartbeat = |n: u32| json!({"type": "heartbeat", "user": format!("user-{n:05}"), "ip": "::1", "page": "/"});
        served.add(&(first..first + 500).map(heartbeat).collect());
    }
    let mut browser = Browser::start();
    browser.open(&url(&served), &json!({}));
    browser.sees("user-00000");
    assert!(browser.run("return await page.locator('#online .row').count()").as_u64() < Some(60));
    browser.turns_to("Changes");
    browser.run(
        "await page.evaluate(() => { window.gaps = []; let last = performance.now(); \
         const step = (now) => { gaps.push(now - last); last = now; requestAnimationFrame(step); }; requestAnimationFrame(step); })",
    );
    let seen = "page.getByText('Changes seen').locator('xpath=..').locator('dd')";
    let before: u64 = number(&browser.run(&format!("return await {seen}.innerText()")));
    let started = std::time::Instant::now();
    for tick in 0..ticks {
        let action = if tick % 2 == 0 { "join" } else { "leave" };
        let change = |n: u32| json!({"type": "document", "user": format!("user-{n:05}"), "doc": format!("doc-{}", n % 7), "action": action});
        let reply = served.client.post(
            "/api/v1/events",
            &json!((0..changes_per_tick).map(change).collect::<Vec<_>>()).to_string(),
        );
        assert_eq!(reply.status, 202, "{reply:?}");
        std::thread::sleep(std::time::Duration::from_millis(100).saturating_sub(
            started.elapsed().saturating_sub(std::time::Duration::from_millis(100) * tick),
        ));
    }
    let wanted = before + u64::from(changes_per_tick * ticks);
    let took = started.elapsed().as_secs_f64();
    wait_until(SOON, "every change is counted", || {
        number(&browser.run(&format!("return await {seen}.innerText()"))) == wanted
    });
    let gaps = browser.run("return await page.evaluate(() => gaps.sort((a, b) => a - b))");
    let gaps: Vec<f64> = serde_json::from_value(gaps).unwrap();
    let at = |share: f64| gaps[((gaps.len() - 1) as f64 * share) as usize];
    eprintln!(
        "{users} online, {:.0} changes/s: {} frames, p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
        f64::from(changes_per_tick * ticks) / took,
        gaps.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    browser.behaved(&served, &[]);
}

fn number(shown: &Value) -> u64 {
    shown.as_str().unwrap().replace(',', "").parse().unwrap()
}

/// `ROLLCALL_TEST_PICTURE=docs/page.png cargo test --test live serve::page::a_picture` takes the one in the README.
#[test]
fn a_picture_of_it_can_be_taken() {
    let served = Served::start(&[("thresholds", "3:1")], &[]);
    let _janitor = served.scene.janitor(&[]);
    let kept = std::env::var("ROLLCALL_TEST_PICTURE");
    let mut load = Command::new(env!("CARGO_BIN_EXE_rollcall"));
    load.args(["load", "--redis-url", &served.scene.url(), "--rate", "40", "--users", "60"]);
    let mut load = load.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut browser = Browser::start();
    browser.open(&url(&served), &json!({"viewport": {"width": 1200, "height": 720}}));
    browser.sees("Live");
    browser.run("await page.locator('#online .rows .row').nth(5).waitFor()");
    browser.run(&format!("await page.waitForTimeout({})", if kept.is_ok() { 12_000 } else { 500 }));
    let taken = tempfile::tempdir().unwrap();
    let path = kept.map_or_else(
        |_| taken.path().join("page.png"),
        |path| Path::new(env!("CARGO_MANIFEST_DIR")).join(path),
    );
    browser.run(&format!("await page.screenshot({{ path: {} }})", json!(path)));
    load.kill().unwrap();
    load.wait().unwrap();
    assert!(std::fs::read(path).unwrap().starts_with(b"\x89PNG"));
}
