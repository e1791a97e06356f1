//! Notifications to a service manager such as systemd (`sd_notify(3)`).

use std::{
    env,
    sync::{
        Once,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

use super::{Control, keep_only};

/// Time between two checks for a new status, if no watchdog asks for more.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// Service manager that started this process and accepts notifications.
#[derive(Debug)]
pub struct Service {
    /// Time without a ping after which it considers the process stuck.
    watchdog: Option<Duration>,
    /// Queue to the sending thread: the socket can block.
    messages: SyncSender<ServiceMessage>,
}

/// Message to the service manager.
#[derive(Debug, Default)]
struct ServiceMessage {
    is_ready: bool,
    status: Option<String>,
    makes_progress: bool,
    is_stopping: bool,
}

/// Maximum number of queued messages; further ones are dropped.
const WAITING_MAX: usize = 8;

/// Minimum time between two pings.
const PING_MIN: Duration = Duration::from_millis(10);

impl Service {
    /// Reads the environment variables `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`, and
    /// starts the sending thread, which drops all capabilities.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        env::var_os("NOTIFY_SOCKET")?;
        let (messages, received) = sync_channel(WAITING_MAX);
        let started = thread::Builder::new()
            .name("conntrace-tell".to_owned())
            .spawn(move || {
                keep_only(&[]);
                received.iter().for_each(|message| send(&message));
            });
        if let Err(error) = started {
            log::warn!("cannot notify the service manager: {error}");
            return None;
        }
        Some(Self {
            watchdog: sd_notify::watchdog_enabled().filter(|watchdog| !watchdog.is_zero()),
            messages,
        })
    }

    /// Notifies that shutdown has begun.
    pub(crate) fn stopping(&self) {
        self.queue(ServiceMessage {
            is_stopping: true,
            ..ServiceMessage::default()
        });
    }

    fn queue(&self, message: ServiceMessage) {
        // The queue is full if the service manager does not read its socket.
        let _ = self.messages.try_send(message);
    }

    /// Returns the time between two pings, which is also the maximum time between two rounds of the
    /// worker. It is a third of the watchdog's, so that one may be late.
    pub(crate) fn ping_every(&self) -> Option<Duration> {
        self.watchdog.map(|watchdog| PING_MIN.max(watchdog / 3))
    }
}

/// Notifies the service manager of the start, of status changes, and of the worker's progress.
/// Never returns.
pub(crate) async fn attend(service: Option<&Service>, control: &Control) {
    let Some(service) = service else {
        return std::future::pending().await;
    };
    let every = service
        .ping_every()
        .unwrap_or(STATUS_EVERY)
        .min(STATUS_EVERY);
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut was_ready, mut rounds) = (false, 0);
    loop {
        ticks.tick().await;
        let now = control.rounds();
        // The first round follows the start line.
        let is_ready = now > 0;
        if !is_ready {
            ticks.reset_after(PING_MIN);
        }
        let message = ServiceMessage {
            is_ready: is_ready && !was_ready,
            status: control.take_status(),
            makes_progress: now != rounds && service.watchdog.is_some(),
            is_stopping: false,
        };
        (was_ready, rounds) = (is_ready, now);
        if message.is_ready || message.makes_progress || message.status.is_some() {
            service.queue(message);
        }
    }
}

fn send(message: &ServiceMessage) {
    static WARNED: Once = Once::new();
    let flag = |is_set: bool, state| is_set.then_some(state);
    let states: Vec<_> = [
        flag(message.is_ready, NotifyState::Ready),
        message.status.as_deref().map(NotifyState::Status),
        flag(message.makes_progress, NotifyState::Watchdog),
        flag(message.is_stopping, NotifyState::Stopping),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let Err(error) = sd_notify::notify(&states) {
        WARNED.call_once(|| log::warn!("cannot notify the service manager: {error}"));
    }
}
