//! What a service manager (systemd) is told: `sd_notify(3)`.

use std::{env, sync::Once, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

use crate::agent::Control;

/// How often a status is looked for where no watchdog asks for more.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The service manager that started this process and wants to be told how it goes.
#[derive(Debug)]
pub struct Service {
    /// The process is taken for stuck when it has not pinged for so long.
    watchdog: Option<Duration>,
}

impl Service {
    /// Finds it by the environment variables `NOTIFY_SOCKET`, `WATCHDOG_USEC` and
    /// `WATCHDOG_PID`.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        env::var_os("NOTIFY_SOCKET")?;
        Some(Self {
            watchdog: sd_notify::watchdog_enabled(),
        })
    }

    /// Time between two pings, and between two turns of the worker at most: a third of the
    /// watchdog's, so that one may be late.
    pub(crate) fn ping_every(&self) -> Option<Duration> {
        self.watchdog.map(|watchdog| watchdog / 3)
    }
}

/// Tells the service manager that tracing is live, how it goes, and that the worker makes
/// progress, for as long as it does. It does not end by itself.
pub(crate) async fn attend(service: Option<Service>, control: &Control) {
    let Some(service) = service else {
        return std::future::pending().await;
    };
    let every = service.ping_every().unwrap_or(LOOK_EVERY).min(LOOK_EVERY);
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut is_ready, mut turns) = (false, 0);
    loop {
        ticks.tick().await;
        let now = control.turns();
        let mut states = Vec::new();
        // The first turn comes behind the start line.
        if !is_ready && now > 0 {
            is_ready = true;
            states.push(NotifyState::Ready);
        }
        let status = control.take_status();
        if let Some(status) = &status {
            states.push(NotifyState::Status(status));
        }
        if now != turns && service.watchdog.is_some() {
            states.push(NotifyState::Watchdog);
        }
        turns = now;
        if !is_ready {
            ticks.reset_after(Duration::from_millis(10));
        }
        tell(&states);
    }
}

/// Tells the service manager, if there is one, that the end has begun.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    static SAID: Once = Once::new();
    if states.is_empty() {
        return;
    }
    if let Err(error) = sd_notify::notify(states) {
        SAID.call_once(|| log::warn!("cannot notify the service manager: {error}"));
    }
}
