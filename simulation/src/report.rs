//! The story of a run as one HTML file: a lane for each node and caller, faults above them, the first broken law marked.
//!
//! Nothing is loaded from anywhere, so it opens without a network. Drawn in SVG; every mark tells its text when pointed at, and
//! the whole story stands below.

use std::fmt::Write;

use crate::run::Story;

const WIDTH: f64 = 1_400.0;
const LANE_HEIGHT: f64 = 26.0;
const LEFT: f64 = 90.0;

pub fn html(story: &Story, commit: &str) -> String {
    let mut out = String::new();
    let broken = &story.outcome.broken;
    let verdict = if broken.is_empty() { "all laws held".to_owned() } else { format!("{} broken", broken.len()) };
    let seed = story.plan.seed;
    write!(
        out,
        "<!doctype html><html lang=en><meta charset=utf-8><title>seed {seed}: {verdict}</title>\n<style>{STYLE}</style>\n\
         <h1>Seed {seed}: {verdict}</h1>\n<p>commit {commit}, {} nodes, {:.1} s simulated, {} calls, {} transfers judged, trace {}</p>\n",
        story.plan.nodes,
        story.outcome.simulated_ms as f64 / 1e3,
        story.outcome.calls,
        story.outcome.transfers,
        story.outcome.trace,
    )
    .expect(WRITES);
    for broken in broken {
        let text = escape(&broken.text);
        writeln!(out, "<p class=law><b>{}</b> at {:.3} s: {text}</p>", broken.law, broken.at_ns as f64 / 1e9)
            .expect(WRITES);
    }
    timeline(&mut out, story);
    out.push_str("<h2>The plan</h2>\n<pre>");
    out.push_str(&escape(&serde_json::to_string_pretty(&story.plan).unwrap_or_default()));
    out.push_str("</pre>\n<h2>The story</h2>\n<table>\n");
    for line in &story.lines {
        let class = if line.kind == "BROKEN" { " class=law" } else { "" };
        writeln!(
            out,
            "<tr{class}><td>{:.3}<td>{}<td>{}<td>{}",
            line.at_ns as f64 / 1e6,
            line.lane,
            line.kind,
            escape(&line.text)
        )
        .expect(WRITES);
    }
    out.push_str("</table>\n");
    out
}

fn timeline(out: &mut String, story: &Story) {
    let mut lanes: Vec<String> = vec!["faults".into()];
    lanes.extend((0..story.plan.nodes + 4).map(|node| format!("n{}", node + 1)));
    lanes.extend((0..story.plan.clients.len()).map(|client| format!("c{client}")));
    lanes.retain(|lane| story.lines.iter().any(|line| line.lane == *lane));
    let end_ns = story.lines.last().map_or(1, |line| line.at_ns.max(1)) as f64;
    let x = |ns: u64| LEFT + ns as f64 / end_ns * (WIDTH - LEFT - 10.0);
    let y = |lane: usize| 30.0 + lane as f64 * LANE_HEIGHT;
    let height = y(lanes.len()) + 10.0;
    writeln!(out, "<svg viewBox='0 0 {WIDTH} {height}' role=img aria-label='timeline'>").expect(WRITES);
    for second in 0..=(end_ns / 1e9) as u64 {
        let at = x(second * 1_000_000_000);
        writeln!(out, "<line x1={at:.1} y1=16 x2={at:.1} y2={height} class=grid /><text x={at:.1} y=12 class=tick>{second} s</text>")
            .expect(WRITES);
    }
    for (index, lane) in lanes.iter().enumerate() {
        writeln!(out, "<text x=4 y={:.1}>{lane}</text>", y(index) + 5.0).expect(WRITES);
        node_bars(out, story, lane, y(index), &x, end_ns as u64);
        for line in story.lines.iter().filter(|line| line.lane == *lane) {
            let class = match line.kind {
                "ok" => "ok",
                "unknown" => "unknown",
                "unavail" => "unavail",
                "stop" | "ended" => "stop",
                "start" => "start",
                "role" | "malformed" => "minor",
                _ => "fault",
            };
            let title = format!("{:.3} ms {} {}", line.at_ns as f64 / 1e6, line.kind, escape(&line.text));
            writeln!(
                out,
                "<rect x={:.1} y={:.1} width=2.5 height=16 class={class}><title>{title}</title></rect>",
                x(line.at_ns),
                y(index) - 8.0
            )
            .expect(WRITES);
        }
    }
    for broken in story.outcome.broken.iter().take(3) {
        let at = x(broken.at_ns);
        writeln!(
            out,
            "<line x1={at:.1} y1=16 x2={at:.1} y2={height} class=broken><title>{}</title></line>",
            broken.law
        )
        .expect(WRITES);
    }
    out.push_str("</svg>\n<p class=legend>Bars on a node's lane: green leads, blue follows, yellow campaigns, grey is down. Marks on a \
        caller's lane: green answered, orange unavailable, red outcome unknown.</p>\n");
}

/// A node's roles as bars, from one telling to the next.
fn node_bars(out: &mut String, story: &Story, lane: &str, y: f64, x: &impl Fn(u64) -> f64, end_ns: u64) {
    let told: Vec<(u64, &str, &str)> = story
        .lines
        .iter()
        .filter(|line| line.lane == lane && matches!(line.kind, "role" | "stop" | "start" | "ended"))
        .map(|line| (line.at_ns, line.kind, line.text.as_str()))
        .collect();
    for (index, (from, kind, text)) in told.iter().enumerate() {
        let to = told.get(index + 1).map_or(end_ns, |next| next.0);
        let class = match *kind {
            "stop" | "ended" => "down",
            _ if text.starts_with("Leader") => "leader",
            _ if text.starts_with("Candidate") => "candidate",
            _ => "follower",
        };
        writeln!(
            out,
            "<rect x={:.1} y={:.1} width={:.1} height=8 class={class}><title>{}</title></rect>",
            x(*from),
            y - 4.0,
            (x(to) - x(*from)).max(0.5),
            escape(text)
        )
        .expect(WRITES);
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;")
}

const WRITES: &str = "a string takes whatever is written";

const STYLE: &str = "body{font:14px/1.4 system-ui,sans-serif;margin:2em;max-width:1500px}h1{font-size:1.3em}\
svg{width:100%;background:#fafafa;border:1px solid #ddd}svg text{font-size:11px}.tick{fill:#888}.grid{stroke:#eee}\
.leader{fill:#2a9d4a}.follower{fill:#9ec5e8}.candidate{fill:#e6c229}.down{fill:#bbb}\
.ok{fill:#2a9d4a}.unavail{fill:#e8912d}.unknown{fill:#d22}.fault{fill:#7a3db8}.stop{fill:#333}.start{fill:#58a}.minor{fill:#cde}\
.broken{stroke:#d00;stroke-width:2;stroke-dasharray:5 3}.law{color:#b00;background:#fee}\
table{border-collapse:collapse;font:12px/1.3 ui-monospace,monospace}td{padding:0 .6em;vertical-align:top;white-space:pre-wrap}\
pre{background:#f6f6f6;padding:1em;max-height:24em;overflow:auto;font-size:12px}.legend{color:#555}";
