//! The story of a run as one HTML file: what was broken first, a lane for the faults, each node and each caller, and every
//! line of the story below.
//!
//! Nothing is loaded from anywhere, so it opens without a network, and years later. Lanes are plain boxes at percentages of
//! the run's length; the little script zooms, filters, and ties the timeline to the story.
//!
//! Not here: what happened (`chronicle.rs`).

use std::fmt::Write;

use crate::{
    auditor::describe,
    coverage, invariants,
    run::{BrokenLaw, Story},
    tell,
};

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");
const WRITES: &str = "a string takes whatever is written";

/// The whole file. `again`: the command that repeats the run.
pub fn html(story: &Story, commit: &str, again: &str) -> String {
    let broken = &story.outcome.broken;
    let of = story.plan.scenario.as_ref().map_or(String::new(), |name| format!(", {name}"));
    let title = format!("Seed {}{of}", story.plan.seed);
    let (class, verdict) = match broken.len() {
        0 => ("good", "all laws held".to_owned()),
        1 => ("bad", "a law was broken".to_owned()),
        count => ("bad", format!("{count} violations")),
    };
    let mut out = String::new();
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}: {verdict}</title>\n\
         <style>\n{STYLE}</style></head>\n<body data-end=\"{end_ns}\">\n<header><h1>{title}</h1><span class=\"badge {class}\">{verdict}</span></header>\n",
        title = escape(&title),
        end_ns = story.outcome.simulated_ms * 1_000_000,
    )
    .expect(WRITES);
    figures(&mut out, story, commit);
    violations(&mut out, story, again);
    timeline(&mut out, story);
    plan(&mut out, story);
    lines(&mut out, story);
    write!(out, "<script>\n{SCRIPT}</script>\n</body></html>\n").expect(WRITES);
    out
}

fn figures(out: &mut String, story: &Story, commit: &str) {
    let outcome = &story.outcome;
    let figures = [
        ("commit", commit.to_owned()),
        ("nodes", story.plan.nodes.to_string()),
        ("simulated", format!("{:.1} s", outcome.simulated_ms as f64 / 1e3)),
        ("calls", outcome.calls.to_string()),
        ("transfers judged", outcome.transfers.to_string()),
        ("faults struck", outcome.faults.values().sum::<u64>().to_string()),
        ("unknown, resolved", outcome.unknown_resolved.to_string()),
        ("trace", outcome.trace.clone()),
    ];
    out.push_str("<dl class=\"figures\">");
    for (name, value) in figures {
        write!(out, "<div><dt>{name}</dt><dd>{}</dd></div>", escape(&value)).expect(WRITES);
    }
    out.push_str("</dl>\n");
}

fn violations(out: &mut String, story: &Story, again: &str) {
    for (place, broken) in story.outcome.broken.iter().take(5).enumerate() {
        let about = invariants::TABLE.iter().find(|law| law.name == broken.law).map_or("", |law| law.about);
        writeln!(
            out,
            "<section class=\"violation\"><h2>{}<b>{}</b> <small>at <a href=\"#\" data-at=\"{}\">{:.3} s</a></small></h2>\
             <p>{}</p><pre>{}</pre></section>",
            if place == 0 { "First bad answer: " } else { "" },
            escape(&broken.law),
            broken.at_ns,
            broken.at_ns as f64 / 1e9,
            escape(about),
            escape(&broken.text),
        )
        .expect(WRITES);
    }
    writeln!(out, "<p class=\"again\">To repeat it: <code>{}</code></p>", escape(again)).expect(WRITES);
}

// ---------------------------------------------------------------------- the timeline

/// Places on the time axis.
struct Axis {
    end_ns: f64,
}

impl Axis {
    fn percent(&self, ns: u64) -> f64 {
        ns as f64 / self.end_ns * 100.0
    }

    /// A box from one time to another, wide enough to be seen.
    fn place(&self, from_ns: u64, to_ns: u64) -> String {
        let width = (self.percent(to_ns) - self.percent(from_ns)).max(0.05);
        format!("left:{:.4}%;width:{width:.4}%", self.percent(from_ns))
    }
}

fn timeline(out: &mut String, story: &Story) {
    let end_ns = story.outcome.simulated_ms.max(1) * 1_000_000;
    let axis = Axis { end_ns: end_ns as f64 };
    out.push_str(
        "<h2>Timeline</h2>\n<div class=\"tools\"><label>zoom <input id=\"zoom\" type=\"range\" min=\"1\" max=\"60\" value=\"1\"></label>\
         <span class=\"key leader\">leads</span><span class=\"key follower\">follows</span>\
         <span class=\"key candidate\">campaigns</span><span class=\"key learner\">learns</span>\
         <span class=\"key down\">is down</span><span class=\"key answered\">answered</span>\
         <span class=\"key unavailable\">unavailable</span><span class=\"key unknown\">outcome unknown</span>\
         <span class=\"key fault\">fault</span></div>\n<div class=\"scroll\"><div id=\"canvas\">\n",
    );
    seconds(out, &axis, end_ns);
    for (place, lane) in fault_lanes(story).into_iter().enumerate() {
        open_lane(out, if place == 0 { "faults" } else { "" }, "fault-lane");
        for fault in lane {
            let (from, to) = (fault.from_ns, fault.to_ns.min(end_ns));
            let title = format!("{} from {:.3} s to {:.3} s", fault.fault, from as f64 / 1e9, to as f64 / 1e9);
            item(out, &axis.place(from, to), "fault", from, &title, fault.fault);
        }
        out.push_str("</div>\n");
    }
    for node in node_lanes(story) {
        open_lane(out, &node, "node-lane");
        node_lane(out, story, &node, &axis, end_ns);
        out.push_str("</div>\n");
    }
    let first_bad = story.outcome.broken.iter().find_map(|broken| broken.call);
    for client in 0..story.plan.clients.len() {
        open_lane(out, &format!("c{client}"), "caller-lane");
        for (index, call) in story.history.iter().enumerate().filter(|(_, call)| call.client as usize == client) {
            let class = format!(
                "{}{}",
                coverage::outcome(&call.answer),
                if first_bad == Some(index) { " first-bad" } else { "" }
            );
            let title = format!(
                "{} {:.3} s to {:.3} s: {}",
                call.op.name(),
                call.invoked_ns as f64 / 1e9,
                call.answered_ns as f64 / 1e9,
                describe(&call.answer)
            );
            item(out, &axis.place(call.invoked_ns, call.answered_ns), &class, call.answered_ns, &title, "");
        }
        out.push_str("</div>\n");
    }
    for BrokenLaw { law, at_ns, .. } in story.outcome.broken.iter().take(3) {
        let left = axis.percent(*at_ns);
        writeln!(out, "<i class=\"broken\" style=\"left:{left:.4}%\" title=\"{}\"></i>", escape(law)).expect(WRITES);
    }
    out.push_str("<i id=\"cursor\" hidden></i>\n</div></div>\n");
}

fn seconds(out: &mut String, axis: &Axis, end_ns: u64) {
    out.push_str("<div class=\"lane seconds\"><b></b>");
    for second in 0..=end_ns / 1_000_000_000 {
        write!(out, "<span style=\"left:{:.4}%\">{second} s</span>", axis.percent(second * 1_000_000_000))
            .expect(WRITES);
    }
    out.push_str("</div>\n");
}

/// Faults on as few lanes as it takes for none to hide another.
fn fault_lanes(story: &Story) -> Vec<Vec<&coverage::Lasted>> {
    let mut lanes: Vec<Vec<&coverage::Lasted>> = Vec::new();
    for fault in &story.faults {
        let free = |lane: &&mut Vec<&coverage::Lasted>| lane.last().is_none_or(|last| last.to_ns < fault.from_ns);
        match lanes.iter_mut().find(free) {
            Some(lane) => lane.push(fault),
            None => lanes.push(vec![fault]),
        }
    }
    lanes
}

fn node_lanes(story: &Story) -> Vec<String> {
    let is_node = |lane: &str| lane.strip_prefix('n').is_some_and(|rest| rest.parse::<u32>().is_ok());
    let mut lanes: Vec<&str> = story.lines.iter().map(|line| line.lane.as_str()).filter(|lane| is_node(lane)).collect();
    lanes.sort_unstable_by_key(|lane| (lane.len(), *lane));
    lanes.dedup();
    lanes.into_iter().map(str::to_owned).collect()
}

/// A node's roles as boxes with their terms, from one telling to the next, and what happened to it as marks.
fn node_lane(out: &mut String, story: &Story, lane: &str, axis: &Axis, end_ns: u64) {
    let told: Vec<_> = story.lines.iter().filter(|line| line.lane == lane).collect();
    let states: Vec<_> = told.iter().filter(|line| matches!(line.kind, "role" | "stop" | "ended" | "start")).collect();
    for (index, line) in states.iter().enumerate() {
        let to_ns = states.get(index + 1).map_or(end_ns, |next| next.at_ns);
        let mut words = line.text.split(' ');
        let (class, text) = match (line.kind, words.next()) {
            ("stop" | "ended", _) => ("down", String::new()),
            ("start", _) => ("starting", String::new()),
            (_, Some(role)) => {
                let term = words.nth(1).unwrap_or_default();
                let class = match role {
                    "Leader" => "leader",
                    "Candidate" => "candidate",
                    "Follower" => "follower",
                    _ => "learner",
                };
                (class, format!("term {term}"))
            }
            _ => ("starting", String::new()),
        };
        let title = format!("{lane} {} at {:.3} s: {}", line.kind, line.at_ns as f64 / 1e9, line.text);
        item(out, &axis.place(line.at_ns, to_ns), class, line.at_ns, &title, &text);
    }
    for line in told.iter().filter(|line| line.kind != "role") {
        let title = format!("{lane} {} at {:.3} s: {}", line.kind, line.at_ns as f64 / 1e9, line.text);
        let class = format!("mark {}", line.kind);
        item(out, &axis.place(line.at_ns, line.at_ns), &class, line.at_ns, &title, "");
    }
}

fn open_lane(out: &mut String, name: &str, class: &str) {
    write!(out, "<div class=\"lane {class}\"><b>{}</b>", escape(name)).expect(WRITES);
}

fn item(out: &mut String, place: &str, class: &str, at_ns: u64, title: &str, text: &str) {
    write!(
        out,
        "<span class=\"{class}\" style=\"{place}\" data-at=\"{at_ns}\" title=\"{}\">{}</span>",
        escape(title),
        escape(text)
    )
    .expect(WRITES);
}

// ---------------------------------------------------------------------- words

fn plan(out: &mut String, story: &Story) {
    let json = serde_json::to_string_pretty(&story.plan).expect("a plan can be written down");
    write!(
        out,
        "<h2>The plan</h2>\n<pre>{}</pre>\n<details><summary>as JSON, for <code>--plan FILE</code></summary><pre>{}</pre></details>\n",
        escape(&tell::plan(&story.plan)),
        escape(&json)
    )
    .expect(WRITES);
    out.push_str("<h2>It did happen</h2>\n<ul class=\"marks\">");
    for (mark, count) in &story.outcome.marks {
        write!(out, "<li>{} <b>{count}</b></li>", escape(mark)).expect(WRITES);
    }
    out.push_str("</ul>\n");
}

fn lines(out: &mut String, story: &Story) {
    out.push_str(
        "<h2>The story</h2>\n<div class=\"tools\"><label>only lines with <input id=\"filter\" placeholder=\"n1, unknown, …\"></label>\
         <label><input id=\"usual\" type=\"checkbox\"> also calls that were answered</label><span id=\"shown\"></span></div>\n\
         <table id=\"story\" class=\"brief\"><tbody>\n",
    );
    for line in &story.lines {
        let class = match line.kind {
            "BROKEN" => "law",
            "answered" | "refused" | "again" => "usual",
            kind => kind,
        };
        writeln!(
            out,
            "<tr class=\"{class}\" data-at=\"{}\"><td>{:.3}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            line.at_ns,
            line.at_ns as f64 / 1e9,
            escape(&line.lane),
            line.kind,
            escape(&line.text)
        )
        .expect(WRITES);
    }
    out.push_str("</tbody></table>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        auditor::records::*,
        chronicle::Line,
        faults::{Kind, Plan, Target},
        run::Outcome,
    };

    fn story() -> Story {
        let line = |at_ms: u64, lane: &str, kind, text: &str| Line {
            at_ns: at_ms * 1_000_000,
            lane: lane.into(),
            kind,
            text: text.into(),
        };
        let call = |answered_ms: u64, answer| Call {
            client: 0,
            op: Op::LookupAccounts(vec![1]),
            level: Level::Linearizable,
            invoked_ns: 1_000_000_000,
            answered_ns: answered_ms * 1_000_000,
            answer,
            retried: false,
        };
        let law = "every_read_is_right";
        let text = "3 rows came, <4> should have";
        Story {
            plan: Plan::quiet(7, 3, 8_000).with(1_500, 300, Kind::Kill { node: Target::Leader }),
            outcome: Outcome {
                seed: 7,
                simulated_ms: 10_000,
                broken: vec![BrokenLaw { law: law.into(), text: text.into(), at_ns: 2_000_000_000, call: Some(1) }],
                ..Outcome::default()
            },
            lines: vec![
                line(300, "n1", "role", "Leader term 3 last 7 committed 6 applied 6 snapshot 0 purged 0"),
                line(1_500, "faults", "kill", "Kill"),
                line(1_500, "n1", "stop", "All"),
                line(1_800, "n1", "start", ""),
                line(2_000, "c0", "answered", "lookup_accounts"),
            ],
            history: vec![
                call(1_600, Answer::Unknown("cut off".into())),
                call(2_000, Answer::Unavailable("no leader".into())),
            ],
            faults: vec![
                coverage::Lasted { fault: "kill", from_ns: 1_500_000_000, to_ns: 1_800_000_000 },
                coverage::Lasted { fault: "pause", from_ns: 1_600_000_000, to_ns: 1_900_000_000 },
            ],
        }
    }

    #[test]
    fn a_report_needs_nothing_but_itself() {
        let html = html(&story(), "abc1234", "jangbu-sim replay 7");
        for outside in ["http://", "https://", "src=", "<link", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
    }

    #[test]
    fn a_report_shows_roles_and_terms_faults_outcomes_and_the_first_bad_answer() {
        let html = html(&story(), "abc1234", "jangbu-sim replay 7");
        assert!(html.contains("First bad answer: <b>every_read_is_right</b>"));
        assert!(html.contains("3 rows came, &lt;4&gt; should have"), "what nodes say is text and no markup");
        assert!(html.contains("abc1234") && html.contains("jangbu-sim replay 7"));
        let leads =
            html.find("class=\"leader\" style=\"left:3.0000%;width:12.0000%\"").expect("a leader from 0.3 s to 1.5 s");
        assert!(html[leads..].split('<').next().unwrap().ends_with(">term 3"));
        assert!(html.contains("class=\"down\" style=\"left:15.0000%;width:3.0000%\""));
        assert!(html.contains("class=\"fault\" style=\"left:15.0000%;width:3.0000%\""));
        assert!(html.contains("class=\"unknown\"") && html.contains("class=\"unavailable first-bad\""));
    }

    #[test]
    fn no_fault_hides_another() {
        let story = story();
        assert_eq!(fault_lanes(&story).len(), 2);
    }

    #[test]
    fn every_tag_is_closed() {
        let html = html(&story(), "abc1234", "jangbu-sim replay 7");
        for tag in
            ["div", "span", "section", "table", "tbody", "tr", "td", "pre", "details", "ul", "dl", "script", "style"]
        {
            let count = |text: &str| html.matches(text).count();
            let opened = count(&format!("<{tag}>")) + count(&format!("<{tag} "));
            assert_eq!(opened, count(&format!("</{tag}>")), "{tag}");
        }
    }
}
