//! Comparison of the added instructions with the committed ones.

use anyhow::{Result, bail};

use super::figures::GuestFigures;

/// Limits of a difference in percent, on the kernel of the committed figures.
const ABOVE_PERCENT_MAX: i64 = 2;
const BELOW_PERCENT_MAX: i64 = 5;
/// The same on another release of its series, both ways.
const OTHER_RELEASE_PERCENT_MAX: i64 = 5;
/// Difference in instructions that always passes.
const ALWAYS: i64 = 20;

/// Fails for every figure that is too far from the committed one, and names it.
pub(super) fn check(committed: &GuestFigures, measured: &GuestFigures) -> Result<()> {
    if committed.kernel != measured.kernel {
        eprintln!(
            "\nANOTHER KERNEL: the committed figures are of {}, these of {}. The tolerance is \
             {OTHER_RELEASE_PERCENT_MAX} %.\n",
            committed.kernel, measured.kernel
        );
    }
    let failures = failures(committed, measured)?;
    if failures.is_empty() {
        let count = committed.own().count();
        eprintln!("{count} figures of {} are as committed", measured.kernel);
        return Ok(());
    }
    bail!(
        "{} figures are not as committed:\n  {}",
        failures.len(),
        failures.join("\n  ")
    )
}

fn failures(committed: &GuestFigures, measured: &GuestFigures) -> Result<Vec<String>> {
    let (series, of_measured) = (series(&committed.kernel), series(&measured.kernel));
    if series != of_measured {
        bail!("the committed figures are of Linux {series}, not of {of_measured}");
    }
    let (above_max, below_max) = if committed.kernel == measured.kernel {
        (ABOVE_PERCENT_MAX, BELOW_PERCENT_MAX)
    } else {
        (OTHER_RELEASE_PERCENT_MAX, OTHER_RELEASE_PERCENT_MAX)
    };
    let mut failures = Vec::new();
    for row in committed.own() {
        let name = format!("{} {}", row.state, row.operation);
        let Some(now) = measured.added(&row.state, &row.operation) else {
            let mut not_run = measured.own_not_run();
            let reason = not_run.find(|it| it.state == row.state);
            let reason = reason.map_or("", |it| &it.reason);
            failures.push(format!("{name}: not measured {reason}"));
            continue;
        };
        let (before, difference) = (row.added, now - row.added);
        if exceeds(difference, before, above_max) {
            failures.push(format!(
                "{name}: {now} added, {before} committed: more than {above_max} % above"
            ));
        } else if exceeds(-difference, before, below_max) {
            failures.push(format!(
                "{name}: {now} added, {before} committed: more than {below_max} % below; keep it \
                 with `cargo xtask bench --guest --write`"
            ));
        }
    }
    for row in measured.own() {
        if committed.added(&row.state, &row.operation).is_none() {
            let (state, operation) = (&row.state, &row.operation);
            failures.push(format!(
                "{state} {operation}: not committed; `cargo xtask bench --guest --write`"
            ));
        }
    }
    Ok(failures)
}

fn exceeds(difference: i64, of: i64, percent_max: i64) -> bool {
    difference > ALWAYS && difference * 100 > of.max(0) * percent_max
}

/// `6.12` of `6.12.117+deb13-cloud-amd64`.
fn series(release: &str) -> String {
    release.split('.').take(2).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::OperationFigure;

    const RELEASE: &str = "6.12.117+deb13-cloud-amd64";

    fn figures(kernel: &str, added: &[(&str, i64)]) -> GuestFigures {
        let row = |&(state, added): &(&str, i64)| OperationFigure {
            state: state.to_owned(),
            operation: "refused".to_owned(),
            instructions: 27_300 + added,
            added,
        };
        GuestFigures {
            kernel: kernel.to_owned(),
            operations: added.iter().map(row).collect(),
            ..GuestFigures::default()
        }
    }

    fn fails(committed: i64, measured: i64) -> bool {
        let committed = figures(RELEASE, &[("full", committed)]);
        check(&committed, &figures(RELEASE, &[("full", measured)])).is_err()
    }

    #[test]
    fn a_figure_may_not_grow() {
        assert!(!fails(2000, 2000));
        assert!(!fails(2000, 2040));
        assert!(fails(2000, 2041));
        // 20 instructions are within what a compiler changes.
        assert!(!fails(100, 120));
        assert!(fails(100, 121));
        assert!(!fails(0, 20));
        assert!(fails(0, 21));
        assert!(fails(-3, 21));
    }

    #[test]
    fn a_figure_that_fell_has_to_be_written() {
        assert!(!fails(2000, 1900));
        assert!(fails(2000, 1899));
        assert!(!fails(100, 80));
        assert!(fails(100, 79));
    }

    #[test]
    fn a_failure_has_its_name_and_both_figures() {
        let committed = figures(RELEASE, &[("full", 2000)]);
        let measured = figures(RELEASE, &[("full", 2100)]);
        let error = check(&committed, &measured).unwrap_err().to_string();
        assert!(
            error.contains("full refused: 2100 added, 2000 committed"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_or_new_state_fails() {
        let one = figures(RELEASE, &[("full", 2000)]);
        let two = figures(RELEASE, &[("full", 2000), ("kprobe", 8000)]);
        assert!(check(&two, &one).is_err());
        assert!(check(&one, &two).is_err());
    }

    #[test]
    fn peers_are_not_gated() {
        let committed = figures(
            RELEASE,
            &[("full", 2000), ("bpftrace", 3000), ("untraced", 0)],
        );
        assert!(check(&committed, &figures(RELEASE, &[("full", 2000)])).is_ok());
    }

    #[test]
    fn another_release_has_more_room_and_another_series_none() {
        let committed = figures(RELEASE, &[("full", 2000)]);
        let with = |kernel, added| check(&committed, &figures(kernel, &[("full", added)]));
        assert!(with("6.12.118+deb13-cloud-amd64", 2100).is_ok());
        assert!(with("6.12.118+deb13-cloud-amd64", 2101).is_err());
        assert!(with("6.1.0-50-cloud-amd64", 2000).is_err());
    }
}
