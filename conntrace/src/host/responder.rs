//! A thread that answers requests.

use std::{
    io,
    sync::mpsc::{
        Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel,
    },
    thread,
    time::Duration,
};

/// Handle to a thread that answers requests one at a time. Once the handle is dropped, the thread
/// ends after the request at hand.
#[derive(Debug)]
pub(super) struct Responder<Request, Response> {
    requests: SyncSender<Request>,
    responses: Receiver<Response>,
}

impl<Request: Send + 'static, Response: Send + 'static> Responder<Request, Response> {
    /// Starts a thread of this name that runs `serve`.
    ///
    /// # Errors
    /// When the thread cannot be created.
    pub(super) fn start(
        name: &str,
        serve: impl FnOnce(&Receiver<Request>, &Sender<Response>) + Send + 'static,
    ) -> io::Result<Self> {
        // One request is being answered, and one waits.
        let (requests, received) = sync_channel(1);
        let (sender, responses) = channel();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || serve(&received, &sender))?;
        Ok(Self {
            requests,
            responses,
        })
    }

    /// Sends a request; returns false if the thread has ended or another request waits.
    pub(super) fn send(&self, request: Request) -> bool {
        self.requests.try_send(request).is_ok()
    }

    /// Returns the next response if there is one.
    ///
    /// # Errors
    /// When there is none yet, or the thread has ended.
    pub(super) fn poll(&self) -> Result<Response, TryRecvError> {
        self.responses.try_recv()
    }

    /// Waits for the next response.
    ///
    /// # Errors
    /// When none comes in time, or the thread has ended.
    pub(super) fn wait(&self, timeout: Duration) -> Result<Response, RecvTimeoutError> {
        self.responses.recv_timeout(timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_waits_for_the_one_before_it() {
        let (go, wait) = channel::<()>();
        let responder = Responder::start("test", move |requests, responses| {
            for request in requests {
                let _ = wait.recv();
                responses.send(request + 1).unwrap();
            }
        });
        let responder = responder.unwrap();
        assert!(matches!(responder.poll(), Err(TryRecvError::Empty)));
        assert!(responder.send(1));
        // Once the thread has taken the first one.
        while !responder.send(2) {}
        assert!(!responder.send(3));
        go.send(()).unwrap();
        assert_eq!(responder.wait(Duration::from_secs(20)).unwrap(), 2);
        drop(go);
        assert_eq!(responder.wait(Duration::from_secs(20)).unwrap(), 3);
    }

    #[test]
    fn a_thread_that_has_ended_takes_nothing() {
        let responder = Responder::<(), ()>::start("test", |_, _| ()).unwrap();
        assert!(responder.wait(Duration::from_secs(20)).is_err());
        assert!(!responder.send(()));
    }
}
