//! A view as it is drawn: a line about the cluster, a chart of its throughput, a line for each node.
//!
//! Not here: where the numbers come from (`view.rs`).

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Row as TableRow, Sparkline, Table};

use super::view::{Replicas, Row, View};
use crate::{output, text};

/// Name and width of each column.
const COLUMNS: [(&str, u16); 15] = [
    ("NODE", 4),
    ("DATA CENTRE", 11),
    ("ENDPOINT", 21),
    ("ROLE", 9),
    ("TERM", 6),
    ("APPLIED", 10),
    ("LAG", 6),
    ("AGE", 8),
    ("P99", 8),
    ("SYNC P99", 8),
    ("QUEUE", 6),
    ("SHED/S", 6),
    ("MEMORY", 8),
    ("DISK FREE", 9),
    ("SERVES", 30),
];

const WELL: Style = Style::new().fg(Color::Green);
const WORRYING: Style = Style::new().fg(Color::Yellow);
const BAD: Style = Style::new().fg(Color::Red);

/// Below this share of its disk a node is shown as worrying, as the alert has it.
const DISK_FREE_SHARE_MIN: f64 = 0.15;

pub fn draw(frame: &mut Frame<'_>, view: &View, throughput: &[u64]) {
    let problems = view.problems.len() as u16;
    let [head, chart, nodes, troubles, keys] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(5),
        Constraint::Length(view.nodes.len() as u16 + 1),
        Constraint::Min(problems),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(ratatui::widgets::Paragraph::new(vec![standing(view), traffic(view)]), head);
    let width = usize::from(chart.width);
    let shown = &throughput[throughput.len().saturating_sub(width)..];
    let title = format!("events a second, up to {}", text::grouped(shown.iter().copied().max().unwrap_or(0)));
    let block = Block::new().borders(Borders::TOP).title(title.dim());
    frame.render_widget(Sparkline::default().data(shown).style(WELL).block(block), chart);
    let widths = COLUMNS.map(|(_, width)| Constraint::Length(width));
    let heading = TableRow::new(COLUMNS.map(|(name, _)| name)).style(Style::new().dim());
    let rows =
        view.nodes.iter().map(|row| TableRow::new(cells(row).map(|(text, style)| Cell::from(text).style(style))));
    frame.render_widget(Table::new(rows, widths).header(heading), nodes);
    let lines: Vec<Line<'_>> = view.problems.iter().map(|problem| Line::styled(format!("- {problem}"), BAD)).collect();
    frame.render_widget(ratatui::widgets::Paragraph::new(lines), troubles);
    frame.render_widget(Line::from("q: leave").dim(), keys);
}

/// The same, for a pipe and for whoever wants one look only.
pub fn text(view: &View) -> String {
    let plain = |line: Line<'_>| line.spans.iter().map(|span| span.content.as_ref()).collect::<String>();
    let rows = view.nodes.iter().map(|row| cells(row).map(|(text, _)| text));
    let mut lines = vec![plain(standing(view)), plain(traffic(view)), String::new()];
    lines.push(output::table(&COLUMNS.map(|(name, _)| name), rows));
    lines.extend(view.problems.iter().map(|problem| format!("- {problem}")));
    lines.join("\n")
}

/// Who leads, how many serve, do they agree.
fn standing(view: &View) -> Line<'_> {
    let leader = match view.leader_id {
        Some(id) => Span::styled(format!("node {id} leads in term {}", view.term), WELL),
        None => Span::styled("no node leads", BAD),
    };
    let serving = format!("{} of {} voters serve", view.voters_serving, view.voters);
    let margin = match view.quorum_margin {
        margin @ 1.. => Span::styled(format!("{margin} may still be lost"), WELL),
        0 => Span::styled("none may be lost", WORRYING),
        missing => Span::styled(format!("{} more must serve", -missing), BAD),
    };
    let replicas = match view.replicas {
        Replicas::Agree => Span::styled("replicas agree", WELL),
        Replicas::Differ => Span::styled("REPLICAS DIFFER: jangbu verify", BAD),
        Replicas::NotComparable => Span::raw("replicas at different entries"),
    };
    let cluster = format!("cluster {}", view.cluster_id.get(..8).unwrap_or("none"));
    Line::from(vec![
        cluster.into(),
        " · ".into(),
        leader,
        " · ".into(),
        serving.into(),
        " · ".into(),
        margin,
        " · ".into(),
        replicas,
    ])
}

/// How much goes through, how fast, and what doesn't.
fn traffic(view: &View) -> Line<'_> {
    let troubling = |rate: Option<f64>| if rate.is_some_and(|rate| rate > 0.0) { BAD } else { Style::new() };
    Line::from(vec![
        format!("{} events a second", text::grouped(view.events_per_second.round() as u64)).bold(),
        " · ".into(),
        format!("payments p50 {} p99 {}", time(view.payment_p50_seconds), time(view.payment_p99_seconds)).into(),
        " · ".into(),
        Span::styled(format!("turned away {} a second", rate(view.shed_per_second)), troubling(view.shed_per_second)),
        " · ".into(),
        Span::styled(
            format!("outcome unknown {} a second", rate(view.unknown_per_second)),
            troubling(view.unknown_per_second),
        ),
    ])
}

fn cells(row: &Row) -> [(String, Style); 15] {
    let plain = |text: String| (text, Style::new());
    if let Some(error) = &row.error {
        let mut cells = [(); 15].map(|()| plain("-".into()));
        cells[0] = (row.node_id.map_or("?".into(), |id| id.to_string()), BAD);
        cells[2] = plain(row.endpoint.clone());
        cells[3] = ("no answer".into(), BAD);
        cells[14] = (error.clone(), BAD);
        return cells;
    }
    let serves = match row.not_ready_because.as_str() {
        "" => ("yes".into(), WELL),
        because => (format!("no: {because}"), BAD),
    };
    let disk = row.disk_free_share.filter(|share| *share < DISK_FREE_SHARE_MIN).map_or(Style::new(), |_| WORRYING);
    let role = if row.role == "Leader" { WELL } else { Style::new() };
    [
        plain(row.node_id.map_or("?".into(), |id| id.to_string())),
        plain(row.data_center.clone()),
        plain(row.endpoint.clone()),
        (row.role.clone(), role),
        plain(row.term.to_string()),
        plain(row.applied_index.to_string()),
        plain(row.lag_entries.to_string()),
        plain(time(row.staleness_seconds)),
        plain(time(row.payment_p99_seconds)),
        plain(time(row.log_sync_p99_seconds)),
        plain(row.queue_requests.map_or("-".into(), |count| count.to_string())),
        plain(rate(row.shed_per_second)),
        plain(row.memory_bytes.map_or("-".into(), |bytes| format!("{:.0} MiB", bytes / f64::from(1 << 20)))),
        (row.disk_free_share.map_or("-".into(), |share| format!("{:.0} %", share * 100.0)), disk),
        serves,
    ]
}

fn rate(a_second: Option<f64>) -> String {
    a_second.map_or("-".into(), |rate| format!("{rate:.0}"))
}

/// In the unit that leaves a number people can read.
fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".into(),
        Some(seconds) if seconds < 0.001 => format!("{:.0} µs", seconds * 1e6),
        Some(seconds) if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::view::tests::sample;
    use super::*;

    fn view() -> View {
        let at = Instant::now();
        View::between(&sample(at, 1_000, 500, 0), &sample(at + Duration::from_secs(2), 3_000, 598, 2))
    }

    fn drawn(width: u16, height: u16, view: &View) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view, &[1, 500, 1_000])).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_wide_terminal_shows_who_leads_how_fast_and_each_node() {
        let screen = drawn(200, 20, &view());
        for part in [
            "node 1 leads in term 2",
            "none may be lost",
            "1,000 events a second",
            "p99 1.5 ms",
            "turned away 1 a second",
            "up to 1,000",
            "512 MiB",
            "25 %",
            "no answer",
            "- 10.0.0.3:7400 does not answer: refused",
            "q: leave",
        ] {
            assert!(screen.contains(part), "`{part}` is missing in\n{screen}");
        }
    }

    #[test]
    fn a_terminal_of_any_size_is_drawn_on() {
        for (width, height) in [(1, 1), (20, 5), (80, 24), (400, 100)] {
            drawn(width, height, &view());
        }
    }

    #[test]
    fn as_text_it_says_the_same() {
        let text = text(&view());
        for part in ["node 1 leads in term 2", "p99 1.5 ms", "10.0.0.3:7400", "no answer", "DISK FREE"] {
            assert!(text.contains(part), "`{part}` is missing in\n{text}");
        }
    }

    #[test]
    fn times_are_told_in_a_unit_that_people_can_read() {
        let told = [None, Some(0.000_25), Some(0.012_34), Some(3.21)].map(time);
        assert_eq!(told, ["-", "250 µs", "12.3 ms", "3.2 s"]);
    }
}
