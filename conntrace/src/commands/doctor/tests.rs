use crate::{
    commands::doctor::*,
    output::event::{Coverage, HookState},
};

/// Returns a start with all hooks attached except the one for stalls.
fn start() -> Start {
    let hook = |program: &capture::HookProgram| HookState {
        name: program.id.name().into(),
        kind: "tp_btf".into(),
        attached: program.id != capture::HookId::TcpRetransmitSkb,
        reason: (program.id == capture::HookId::TcpRetransmitSkb)
            .then(|| "no such tracepoint".to_owned()),
    };
    Start {
        version: "1".into(),
        boot_id: None,
        kernel: "6.1".to_owned(),
        tier: "tracepoint".into(),
        pid: 1,
        hooks: PROGRAMS.iter().map(hook).collect(),
        coverage: Coverage {
            established: true,
            rst: true,
            ..Coverage::default()
        },
        limits: Vec::new(),
    }
}

fn limited() -> HostCheck {
    HostCheck {
        name: "cgroup_v2",
        state: CheckState::Limits,
        found: "not mounted".to_owned(),
        cost: Some("`cgroup` is null"),
        remedy: Some("mount it"),
    }
}

#[test]
fn whatever_is_not_seen_has_a_reason_and_a_remedy() {
    let report = report_on(Ok(&start()), Vec::new());
    assert_eq!(report.coverage.len(), 16);
    for (key, seen) in &report.coverage {
        let missing = seen.seen == Some(false);
        assert_eq!(missing, !["established", "rst"].contains(key));
        assert_eq!(
            (seen.reason.is_some(), seen.remedy.is_some()),
            (missing, missing)
        );
    }
    let start_line = serde_json::to_value(start().coverage).unwrap();
    for key in start_line.as_object().unwrap().keys() {
        assert!(report.coverage.contains_key(key.as_str()), "{key}");
    }
}

#[test]
fn a_gap_of_functions_is_another_where_some_are_hooked() {
    let reason = |tier: &'static str| {
        let start = Start {
            tier: tier.into(),
            ..start()
        };
        let report = report_on(Ok(&start), Vec::new());
        report.coverage["no_route"].reason.unwrap()
    };
    assert!(reason("tracepoint").contains("only its system call shows it"));
    assert_eq!(
        reason("full"),
        "a function that shows it could not be hooked"
    );
}

#[test]
fn what_could_not_be_tried_is_unknown() {
    let error = StartError::Privilege("CAP_BPF".to_owned());
    let report = report_on(Err(&error), vec![limited()]);
    assert!(!report.can_trace && report.tier.is_none());
    assert!(report.hooks.iter().all(|hook| hook.attached.is_none()));
    assert!(report.coverage.values().all(|seen| seen.seen.is_none()));
    let obstacle = report.obstacle.as_ref().unwrap();
    assert_eq!(obstacle.kind, ObstacleKind::Privilege);
    let text = text(&report);
    for part in [
        "\nTracing cannot start: tracing needs root, or the capabilities CAP_BPF",
        "\nHooks: none of 13 could be tried\n",
        "\nCoverage: not known\n",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn text_counts_what_is_well_and_names_what_is_not() {
    let text = text(&report_on(Ok(&start()), vec![limited()]));
    for part in [
        "\nTracing can start: tracepoint tier; 12 of 13 hooks attached\nTo see more:\n  conntrace --trace-syscalls\n  (slows ",
        "
Host: 0 of 1 checks are ok
  limits    cgroup_v2: not mounted; `cgroup` is null
            remedy: mount it
",
        "
Hooks: 12 of 13 attached
  missing   tcp_retransmit_skb
            because: no such tracepoint
            costs: no stall lines, so no warning before a timeout
",
        "
Coverage: 2 of 16 kinds
  seen      established, rst
  not seen  aborted, app_timeout, bind_exhausted, drops_elsewhere, icmp,
",
        "
            icmp6_detail: setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, 1) in the
            application
",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

/// The report has 24 lines of 80 columns if all is well, and 40 in the worst case.
#[test]
fn text_fits_a_screen() {
    let lines = |text: &str| {
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        text.lines().count()
    };
    let mut well = start();
    well.tier = "full".into();
    for hook in &mut well.hooks {
        (hook.attached, hook.reason) = (true, None);
    }
    well.coverage = coverage_of_all();
    let ok = HostCheck {
        state: CheckState::Ok,
        cost: None,
        remedy: None,
        ..limited()
    };
    let facts = || (0..11).map(|_| limited()).collect();
    let well = text(&report_on(Ok(&well), vec![ok]));
    assert!(lines(&well) <= 24, "{well}");
    assert!(
        !well.contains("not seen") && !well.contains("To see more"),
        "{well}"
    );

    let mut bad = start();
    for hook in bad.hooks.iter_mut().skip(5) {
        let reason = "full: the BPF_PROG_LOAD syscall returned Operation not permitted (os error 1); \
                      kprobe: `/sys/bus/event_source/devices/kprobe/type`: No such file or directory \
                      (os error 2)";
        (hook.attached, hook.reason) = (false, Some(reason.to_owned()));
    }
    let bad = text(&report_on(Ok(&bad), vec![limited(), limited()]));
    assert!(lines(&bad) <= 40, "{}: {bad}", lines(&bad));

    let error = StartError::Privilege("CAP_BPF".to_owned());
    let none = text(&report_on(Err(&error), facts()));
    assert!(lines(&none) <= 40, "{none}");
}

fn coverage_of_all() -> Coverage {
    let none = serde_json::to_value(Coverage::default()).unwrap();
    let all = none
        .as_object()
        .unwrap()
        .keys()
        .map(|key| (key.clone(), true.into()));
    serde_json::from_value(serde_json::Value::Object(all.collect())).unwrap()
}

/// `cargo xtask vm --write` writes the table in two places.
#[test]
fn the_documents_have_the_same_kernels() {
    assert!(!kernels().contains('`') && kernels().contains("| kernel | tier |"));
    let page = include_str!("../../../../docs/kernels.md");
    assert!(page.contains(text::KERNELS));
    assert!(
        text::KERNELS.lines().count() > 2,
        "a row for each kernel and tier"
    );
}

/// The JSON is a public interface: a change here affects its readers.
#[test]
fn json_has_its_shape() {
    let report = report_on(Ok(&start()), vec![limited()]);
    let json: serde_json::Value = serde_json::from_str(&json(&report).unwrap()).unwrap();
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(
        keys(&json),
        [
            "schema",
            "version",
            "kernel",
            "architecture",
            "can_trace",
            "tier",
            "obstacle",
            "facts",
            "hooks",
            "coverage"
        ]
    );
    assert_eq!(
        keys(&json["facts"][0]),
        ["name", "state", "found", "cost", "remedy"]
    );
    assert_eq!(json["facts"][0]["state"], "limits");
    assert_eq!(
        keys(&json["hooks"][0]),
        [
            "name", "target", "required", "attached", "reason", "purpose", "cost"
        ]
    );
    assert_eq!(
        keys(&json["coverage"]["stall"]),
        ["seen", "reason", "remedy"]
    );
    assert_eq!(json["obstacle"], serde_json::Value::Null);
}
