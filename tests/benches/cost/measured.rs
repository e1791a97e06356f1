//! Results of the measurements: rows with units and targets, by section of the table.

use serde_json::{Value, json};

/// Repeated measurements of one figure.
#[derive(Clone)]
pub(crate) struct Spread {
    sorted: Vec<f64>,
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "something was measured");
        values.sort_by(f64::total_cmp);
        Self { sorted: values }
    }

    pub(crate) fn median(&self) -> f64 {
        let n = self.sorted.len();
        f64::midpoint(self.sorted[(n - 1) / 2], self.sorted[n / 2])
    }

    /// Returns the 95 % interval of the median, by order statistics: ranks n/2 ± 0.98 √n hold it in
    /// 95 of 100 cases.
    pub(crate) fn interval(&self) -> (f64, f64) {
        let n = self.sorted.len();
        let half_width = (0..n)
            .take_while(|k| (k * k) as f64 <= 0.98 * 0.98 * n as f64)
            .count();
        let low = (n / 2).saturating_sub(half_width);
        (self.sorted[low], self.sorted[n - 1 - low])
    }

    pub(crate) fn least(&self) -> f64 {
        self.sorted[0]
    }

    pub(crate) fn most(&self) -> f64 {
        self.sorted[self.sorted.len() - 1]
    }

    /// Returns the value that `percent` percent of the figures do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let n = self.sorted.len();
        self.sorted[(n * percent / 100).min(n - 1)]
    }
}

/// Result of a measurement.
pub(crate) enum Measured {
    /// One value for every round or sample.
    Spread(Spread),
    /// Single value.
    Number(f64),
    /// Measurement that could not run, with its reason.
    NotRun(String),
}

/// Target of a figure.
#[derive(Clone, Copy)]
pub(crate) enum FigureTarget {
    AtMost(f64),
    AtLeast(f64),
}

impl FigureTarget {
    pub(crate) fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    pub(crate) fn show(self) -> String {
        match self {
            Self::AtMost(limit) => format!("at most {limit}"),
            Self::AtLeast(limit) => format!("at least {limit}"),
        }
    }
}

/// Row of the table: a figure and its target.
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    /// Digits after the decimal point.
    pub(crate) digits: usize,
    /// Ends of the connection on this host, its close, and the agent's tier.
    pub(crate) ran: Option<String>,
    pub(crate) measured: Measured,
    pub(crate) target: Option<FigureTarget>,
}

impl Figure {
    fn new(what: impl Into<String>, unit: &'static str, digits: usize, measured: Measured) -> Self {
        Self {
            what: what.into(),
            unit,
            digits,
            ran: None,
            measured,
            target: None,
        }
    }

    pub(crate) fn number(
        what: impl Into<String>,
        unit: &'static str,
        digits: usize,
        number: f64,
    ) -> Self {
        Self::new(what, unit, digits, Measured::Number(number))
    }

    pub(crate) fn spread(
        what: impl Into<String>,
        unit: &'static str,
        digits: usize,
        spread: Spread,
    ) -> Self {
        Self::new(what, unit, digits, Measured::Spread(spread))
    }

    pub(crate) fn not_run(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(what, "", 0, Measured::NotRun(why.into()))
    }

    pub(crate) fn at_most(self, limit: f64) -> Self {
        Self {
            target: Some(FigureTarget::AtMost(limit)),
            ..self
        }
    }

    pub(crate) fn ran(self, ran: &str) -> Self {
        Self {
            ran: Some(ran.to_owned()),
            ..self
        }
    }

    pub(crate) fn at_least(self, limit: f64) -> Self {
        Self {
            target: Some(FigureTarget::AtLeast(limit)),
            ..self
        }
    }

    /// Returns the figure that represents all, or none if it was not measured.
    pub(crate) fn value(&self) -> Option<f64> {
        match &self.measured {
            Measured::Spread(spread) => Some(spread.median()),
            Measured::Number(number) => Some(*number),
            Measured::NotRun(_) => None,
        }
    }

    /// Returns true if the target is met, or none without target or figure.
    pub(crate) fn is_met(&self) -> Option<bool> {
        Some(self.target?.is_met(self.value()?))
    }

    pub(crate) fn json(&self) -> Value {
        let mut row = json!({
            "what": self.what,
            "unit": self.unit,
            "digits": self.digits,
            "ran": self.ran,
            "value": self.value(),
            "target": self.target.map(FigureTarget::show),
            "met": self.is_met(),
        });
        match &self.measured {
            Measured::Spread(spread) => {
                row["interval_95"] = json!(spread.interval());
                row["min"] = json!(spread.least());
                row["max"] = json!(spread.most());
                row["samples"] = json!(spread.sorted.len());
            }
            Measured::Number(_) => {}
            Measured::NotRun(why) => row["not_run"] = json!(why),
        }
        row
    }
}

/// Section of the table.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    /// Description of the measurement.
    pub(crate) about: String,
    pub(crate) rows: Vec<Figure>,
    /// Unit of the rows that the chart shows.
    pub(crate) plotted: Option<&'static str>,
}

impl Section {
    /// Creates a section that the chart does not show.
    pub(crate) fn new(title: &'static str, about: impl Into<String>, rows: Vec<Figure>) -> Self {
        Self {
            title,
            about: about.into(),
            rows,
            plotted: None,
        }
    }
}
