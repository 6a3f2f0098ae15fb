//! Tells a story in timed steps: to people as it happens, to programs as a report at the end.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use serde::Serialize;

/// A step that is done.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Step {
    /// What happened.
    pub(crate) title: String,
    /// What was seen.
    pub(crate) details: Vec<String>,
    /// How long it took.
    pub(crate) duration_ms: u64,
    /// When it was done, since the story began.
    pub(crate) at_ms: u64,
}

/// Prints steps and remembers them.
pub(crate) struct Story {
    began: Instant,
    step_began: Instant,
    steps: Vec<Step>,
    to_stderr: bool,
    live: bool,
}

impl Story {
    /// A story for standard output, or for standard error when standard output belongs to a report.
    pub(crate) fn begin(to_stderr: bool) -> Self {
        let live = if to_stderr { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
        let now = Instant::now();
        Self { began: now, step_began: now, steps: Vec::new(), to_stderr, live }
    }

    /// Prints a heading.
    pub(crate) fn heading(&self, text: &str) {
        self.print(&format!("\n{text}\n"));
    }

    /// Says what is being waited for; on a terminal the next line replaces it.
    pub(crate) fn waiting(&self, what: &str) {
        if self.live {
            self.print(&format!("\r\x1b[2K   … {what} ({})", seconds(self.step_began.elapsed())));
        }
    }

    /// Ends the step that has been going on since the last one ended.
    pub(crate) fn done(&mut self, title: impl Into<String>, details: Vec<String>) {
        let title = title.into();
        let duration = self.step_began.elapsed();
        let clear = if self.live { "\r\x1b[2K" } else { "" };
        self.print(&format!("{clear}{:>8}  ✓ {title} ({})\n", clock(self.began.elapsed()), seconds(duration)));
        for detail in &details {
            self.print(&format!("            {detail}\n"));
        }
        let at_ms = millis(self.began.elapsed());
        self.steps.push(Step { title, details, duration_ms: millis(duration), at_ms });
        self.step_began = Instant::now();
    }

    /// Prints lines that belong to no step.
    pub(crate) fn say(&self, text: &str) {
        self.print(&format!("{text}\n"));
    }

    /// The steps so far.
    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Time since the beginning.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        millis(self.began.elapsed())
    }

    fn print(&self, text: &str) {
        // A closed pipe ends no story: what it must do matters more than who listens.
        let _ = if self.to_stderr {
            std::io::stderr().write_all(text.as_bytes())
        } else {
            std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush())
        };
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn seconds(duration: Duration) -> String {
    format!("{}.{} s", duration.as_secs(), duration.subsec_millis().div_euclid(100))
}

fn clock(duration: Duration) -> String {
    format!("{}:{:02}", duration.as_secs().div_euclid(60), duration.as_secs().rem_euclid(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_remembered_in_order_with_their_times() {
        let mut story = Story::begin(true);
        story.done("first", vec!["seen".to_owned()]);
        story.done("second", Vec::new());
        let titles: Vec<_> = story.steps().iter().map(|step| step.title.as_str()).collect();
        assert_eq!(titles, ["first", "second"]);
        assert!(story.steps()[1].at_ms >= story.steps()[0].at_ms);
    }

    #[test]
    fn times_are_readable() {
        assert_eq!(seconds(Duration::from_millis(1_950)), "1.9 s");
        assert_eq!(clock(Duration::from_secs(65)), "1:05");
    }
}
