//! One connection to the server: hyper's client, and the task that polls it.
//!
//! hyper means a connection to run in a task of its own. Here whoever waits for the answer polls the
//! connection first, so that nothing has to be woken on the way from the socket to the answer.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};

use super::failure::Failure;
use super::job::{Endpoint, Kind, Payload};
use super::wire::{Receiving, Wire};

/// Of an answer that was not expected, what is kept at most.
const EXCERPT: usize = 200;

pub(crate) struct Client {
    sender: SendRequest<Payload>,
    /// `None` once it has ended.
    connection: Option<Connection<Wire, Payload>>,
    /// A header map to be used again.
    spare: HeaderMap,
}

/// An answer that arrived whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// The begin of its body, where that was wanted.
    pub(crate) excerpt: Vec<u8>,
}

/// An exchange that failed.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Before anything was written: the connection had been closed.
    Unsent,
    Failed(Failure),
}

impl Client {
    pub(crate) async fn connect(
        endpoint: &Endpoint,
        receiving: &Rc<Receiving>,
    ) -> Result<Self, Failure> {
        let wire = Wire::connect(endpoint, receiving).await;
        let wire = wire.map_err(|error| Failure::connecting(&error))?;
        let (sender, connection) =
            Builder::new().handshake(wire).await.map_err(|error| Failure::exchanging(&error))?;
        Ok(Self { sender, connection: Some(connection), spare: HeaderMap::new() })
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && Pin::new(connection).poll(cx).is_ready()
        {
            // An error is told to the request that it befell.
            self.connection = None;
        }
    }

    /// Ready with whether the connection can be used, or is closed.
    pub(crate) fn poll_usable(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.drive(cx);
        self.sender.poll_ready(cx).map(|ready| ready.is_ok())
    }

    /// Sends a request and reads its answer to the end.
    pub(crate) async fn exchange(
        &mut self,
        kind: &Kind,
        wants_excerpt: impl FnOnce(StatusCode) -> bool,
    ) -> Result<Answer, Broken> {
        let request = kind.request(std::mem::take(&mut self.spare));
        let mut response = pin!(self.sender.try_send_request(request));
        let response = poll_fn(|cx| {
            self.drive(cx);
            response.as_mut().poll(cx)
        });
        let (head, mut body) = match response.await {
            Ok(response) => response.into_parts(),
            Err(error) if error.message().is_some() => return Err(Broken::Unsent),
            Err(error) => return Err(Broken::Failed(Failure::exchanging(&error.into_error()))),
        };
        self.spare = head.headers;
        // The values are views of the read buffer, which hyper cannot use again before they are gone.
        self.spare.clear();
        let wants = if wants_excerpt(head.status) { EXCERPT } else { 0 };
        let mut excerpt = Vec::new();
        while !body.is_end_stream() {
            match poll_fn(|cx| self.poll_frame(&mut body, cx)).await {
                None => break,
                Some(Err(error)) => return Err(Broken::Failed(Failure::exchanging(&error))),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        let wanted = wants.saturating_sub(excerpt.len()).min(data.len());
                        excerpt.extend_from_slice(&data[..wanted]);
                    }
                }
            }
        }
        Ok(Answer { status: head.status, excerpt })
    }

    fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, hyper::Error>>> {
        // The first asks for data, and the connection reads none before it is asked.
        let asked = Pin::new(&mut *body).poll_frame(cx);
        if asked.is_ready() {
            return asked;
        }
        self.drive(cx);
        Pin::new(body).poll_frame(cx)
    }
}
