//! Cost of the second attachment. It must pay off, because kernel timeouts (timer softirqs)
//! interrupt the opening and refusing of other attempts.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use conntrace_testnet::{self, FAR_V4, ports};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::{
    measured::{Figure, Section},
    traced::TracedAgent,
    work::refused_loop,
};

/// Attempts whose timeouts meet the opening of others.
const TIMERS: usize = 2_000;
const TIMER_ROUNDS: usize = 10;

pub(crate) fn attachment() -> Section {
    let (mut skipped, mut taken_over, mut unseen, mut attempts) = (0, 0, 0, 0);
    for _ in 0..TIMER_ROUNDS {
        let mut tracer = TracedAgent::start(&[]);
        conntrace_testnet::run("bench", |_| timeouts_meet_opens()).unwrap();
        let stop = tracer.stop();
        let count = |value: &Value| value.as_u64().unwrap();
        skipped += count(&stop["missed_hooks"]);
        taken_over += count(&stop["second_attachment"]);
        unseen += count(&stop["lost"]["ending_missed"]);
        attempts += count(&stop["attempts"]);
    }
    let row = |what, count| Figure::number(what, "", 0, count as f64);
    let rows = vec![
        row("attempts", attempts),
        row("runs that the kernel skipped", skipped),
        row("taken over by the second attachment", taken_over),
        row("endings that no program saw", unseen),
    ];
    let about = format!(
        "{TIMER_ROUNDS} rounds in which {TIMERS} timeouts of the kernel meet the opening of \
         other attempts."
    );
    Section::new("The second attachment", about, rows)
}

fn timeouts_meet_opens() {
    let silent = SocketAddr::from((FAR_V4, ports::SILENT)).into();
    let waiting: Vec<_> = (0..TIMERS)
        .map(|i| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let after = Duration::from_millis(500 + (i as u64 % 500));
            socket.set_tcp_user_timeout(Some(after)).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&silent);
            socket
        })
        .collect();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let began = Instant::now();
                while began.elapsed() < Duration::from_millis(2_500) {
                    refused_loop(1_000);
                }
            });
        }
    });
    drop(waiting);
}
