//! What a run is to do, and what of it is checked and made ready before it begins.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use hyper::body::{Frame, SizeHint};

use super::choice::Choice;
use super::schedule::Schedule;

/// A longer run than this is a mistake.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// What one process can have of sockets, about.
const MOST_CONNECTIONS: usize = 65_536;
/// Requests a second.
const HIGHEST_RATE: f64 = 1e7;
/// Each kind has histograms of its own.
const MOST_KINDS: usize = 1024;
const MOST_HEADERS: usize = 1024;

/// Why a run cannot begin or go on. The text is one sentence.
#[derive(Debug)]
pub struct LoadError(String);

impl LoadError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LoadError {}

/// Where the server listens.
#[derive(Clone, Debug)]
pub enum Address {
    /// A host, by name or address, and a port.
    Tcp(String, u16),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// One kind of request.
#[derive(Clone, Debug)]
pub struct RequestSpec {
    /// The method, in capitals.
    pub method: String,
    /// Path and query, percent-encoded, from the slash on.
    pub path: String,
    /// Beyond `Host`, unless it is here, and `Content-Length`, which is never.
    pub headers: Vec<(String, String)>,
    /// Sent as it is.
    pub body: Bytes,
    /// Its share, in relation to the others' weights.
    pub weight: f64,
    /// The statuses that are right; any below 400 where there is none.
    pub expect: Vec<u16>,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Job {
    /// The server.
    pub address: Address,
    /// What to send.
    pub requests: Vec<RequestSpec>,
    /// Connections: as many requests are under way at once (open loop: at most).
    pub connections: usize,
    /// How long is measured.
    pub duration: Duration,
    /// How long before that requests are sent and not counted.
    pub warmup: Duration,
    /// Requests a second of the open loop; `None`: closed loop.
    pub rate: Option<f64>,
    /// How long an answer may take, from the actual sending to its last byte.
    pub timeout: Duration,
    /// How long answers are waited for after the end of sending.
    pub grace: Duration,
    /// How long no connection may come about before the server counts as gone.
    pub give_up: Duration,
    /// The length of a slice, at least; a long run has longer ones.
    pub slice: Duration,
    /// How often progress is told.
    pub progress: Duration,
    /// Which of the sequences of requests is sent.
    pub seed: u64,
}

/// A [`Job`] that can be done.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) endpoint: Endpoint,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) choice: Choice,
    pub(crate) schedule: Option<Schedule>,
}

/// An address that was looked up.
#[derive(Debug)]
pub(crate) enum Endpoint {
    Tcp(Vec<SocketAddr>),
    Unix(PathBuf),
}

/// One kind of request, ready to be sent.
#[derive(Debug)]
pub(crate) struct Kind {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
    expect: Vec<u16>,
}

impl Plan {
    /// Blocks while the host's name is looked up.
    pub(crate) fn new(job: &Job) -> Result<Self, LoadError> {
        check(job)?;
        let host = match &job.address {
            Address::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            Address::Tcp(host, port) => format!("{host}:{port}"),
            Address::Unix(_) => "localhost".to_owned(),
        };
        let kinds =
            job.requests.iter().map(|spec| Kind::new(spec, &host)).collect::<Result<_, _>>();
        let weights = job.requests.iter().map(|spec| spec.weight);
        Ok(Self {
            endpoint: Endpoint::look_up(&job.address)?,
            kinds: kinds?,
            choice: Choice::new(job.seed, weights).ok_or_else(|| {
                LoadError::new("the weights must be numbers, none negative and some positive.")
            })?,
            schedule: job.rate.map(Schedule::new),
        })
    }
}

fn check(job: &Job) -> Result<(), LoadError> {
    let refuse = |text: String| Err(LoadError::new(text));
    if !(1..=MOST_CONNECTIONS).contains(&job.connections) {
        return refuse(format!("connections must be from 1 to {MOST_CONNECTIONS}."));
    }
    if job.requests.len() > MOST_KINDS {
        return refuse(format!("more than {MOST_KINDS} requests cannot be told apart."));
    }
    if job.rate.is_some_and(|rate| !(rate > 0.0 && rate <= HIGHEST_RATE)) {
        return refuse(format!("the rate must be positive and at most {HIGHEST_RATE:.0}."));
    }
    for (name, time) in [
        ("duration", job.duration),
        ("timeout", job.timeout),
        ("slice", job.slice),
        ("progress", job.progress),
    ] {
        if time.is_zero() {
            return refuse(format!("{name} must be longer than nothing."));
        }
    }
    for (name, time) in
        [("duration", job.duration), ("warmup", job.warmup), ("timeout", job.timeout)]
    {
        if time > LONGEST {
            return refuse(format!("{name} must be {} s at most.", LONGEST.as_secs()));
        }
    }
    Ok(())
}

impl Endpoint {
    fn look_up(address: &Address) -> Result<Self, LoadError> {
        match address {
            Address::Unix(path) => Ok(Self::Unix(path.clone())),
            Address::Tcp(host, port) => {
                let found = (host.as_str(), *port).to_socket_addrs().map_err(|error| {
                    LoadError::new(format!("the host {host:?} was not found: {error}."))
                })?;
                Ok(Self::Tcp(found.collect()))
            }
        }
    }
}

impl Kind {
    fn new(spec: &RequestSpec, host: &str) -> Result<Self, LoadError> {
        let refuse = |what: &str, value: &str| {
            LoadError::new(format!("{} {}: {what} {value:?}.", spec.method, spec.path))
        };
        let method = Method::from_bytes(spec.method.as_bytes())
            .ok()
            .filter(|method| method != Method::CONNECT)
            .ok_or_else(|| refuse("cannot send the method", &spec.method))?;
        let uri = Some(&spec.path)
            .filter(|path| path.starts_with('/'))
            .and_then(|path| Uri::builder().path_and_query(path.as_str()).build().ok())
            .ok_or_else(|| refuse("cannot send the path", &spec.path))?;
        if spec.headers.len() > MOST_HEADERS {
            return Err(refuse("too many headers, the first is", &spec.headers[0].0));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &spec.headers {
            let key = HeaderName::from_bytes(name.as_bytes())
                .ok()
                // The body's length is the generator's to say: a wrong one breaks its own framing.
                .filter(|name| name != CONTENT_LENGTH && name != TRANSFER_ENCODING)
                .ok_or_else(|| refuse("cannot send the header", name))?;
            let value = HeaderValue::from_str(value)
                .map_err(|_| refuse("cannot send the value of the header", name))?;
            headers.append(key, value);
        }
        if !headers.contains_key(HOST) {
            let host = HeaderValue::from_str(host).map_err(|_| refuse("no host is", host))?;
            headers.insert(HOST, host);
        }
        let expect = spec.expect.clone();
        if let Some(status) = expect.iter().find(|status| !(200..1000).contains(*status)) {
            return Err(refuse("no answer has the status", &status.to_string()));
        }
        Ok(Self { method, uri, headers, body: spec.body.clone(), expect })
    }

    /// A request of this kind. `spare` is a map that was used before, for its memory.
    pub(crate) fn request(&self, mut spare: HeaderMap) -> Request<Payload> {
        spare.clear();
        for (name, value) in &self.headers {
            spare.append(name, value.clone());
        }
        let mut request = Request::new(Payload(self.body.clone()));
        request.method_mut().clone_from(&self.method);
        request.uri_mut().clone_from(&self.uri);
        *request.headers_mut() = spare;
        request
    }

    pub(crate) fn is_expected(&self, status: StatusCode) -> bool {
        match self.expect.as_slice() {
            [] => status.as_u16() < 400,
            expect => expect.contains(&status.as_u16()),
        }
    }

    /// What an answer with another status is said to be.
    pub(crate) fn unexpected(&self, status: StatusCode, body: &[u8]) -> String {
        let expected = match self.expect.as_slice() {
            [] => "a status below 400".to_owned(),
            expect => expect.iter().map(u16::to_string).collect::<Vec<_>>().join(" or "),
        };
        let (method, uri) = (&self.method, &self.uri);
        let mut text = format!("{method} {uri} was answered {status}, expected {expected}");
        if !body.is_empty() {
            text = format!("{text}: {}", String::from_utf8_lossy(body));
        }
        text
    }

    /// What another failure of such a request is said to be.
    pub(crate) fn failed(&self, how: &str) -> String {
        format!("{} {}: {how}", self.method, self.uri)
    }
}

/// A request's body, in one piece.
#[derive(Debug)]
pub(crate) struct Payload(Bytes);

impl http_body::Body for Payload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let body = std::mem::take(&mut self.0);
        Poll::Ready((!body.is_empty()).then(|| Ok(Frame::data(body))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> RequestSpec {
        RequestSpec {
            method: "GET".into(),
            path: "/x?y=1".into(),
            headers: vec![],
            body: Bytes::new(),
            weight: 1.0,
            expect: vec![],
        }
    }

    fn job() -> Job {
        Job {
            address: Address::Tcp("127.0.0.1".into(), 80),
            requests: vec![spec()],
            connections: 1,
            duration: Duration::from_secs(1),
            warmup: Duration::ZERO,
            rate: None,
            timeout: Duration::from_secs(1),
            grace: Duration::ZERO,
            give_up: Duration::ZERO,
            slice: Duration::from_secs(1),
            progress: Duration::from_secs(1),
            seed: 0,
        }
    }

    fn refusal(change: impl FnOnce(&mut Job)) -> String {
        let mut job = job();
        change(&mut job);
        Plan::new(&job).unwrap_err().to_string()
    }

    #[test]
    fn a_request_is_made_as_often_as_it_is_wanted() {
        let spec = RequestSpec {
            headers: vec![("Accept".into(), "a".into()), ("Accept".into(), "b".into())],
            ..spec()
        };
        let kind = Kind::new(&spec, "h:80").unwrap();
        let first = kind.request(HeaderMap::new());
        let mut used = first.headers().clone();
        used.insert("server", HeaderValue::from_static("x"));
        let second = kind.request(used);
        assert_eq!(first.headers(), second.headers());
        assert_eq!(second.headers()[HOST], "h:80");
        assert_eq!(second.uri(), "/x?y=1");
        let own = RequestSpec { headers: vec![("host".into(), "mine".into())], ..spec };
        assert_eq!(Kind::new(&own, "h").unwrap().request(HeaderMap::new()).headers()[HOST], "mine");
    }

    #[test]
    fn what_is_expected_is_a_status_of_the_list_or_below_400() {
        let any = Kind::new(&spec(), "h").unwrap();
        assert!(any.is_expected(StatusCode::FOUND) && !any.is_expected(StatusCode::NOT_FOUND));
        let one = Kind::new(&RequestSpec { expect: vec![404], ..spec() }, "h").unwrap();
        assert!(one.is_expected(StatusCode::NOT_FOUND) && !one.is_expected(StatusCode::OK));
        let told = one.unexpected(StatusCode::OK, b"why");
        assert_eq!(told, "GET /x?y=1 was answered 200 OK, expected 404: why");
    }

    #[test]
    fn what_cannot_be_sent_is_refused_by_name() {
        assert!(refusal(|job| job.requests[0].path = "x".into()).contains("the path \"x\""));
        assert!(refusal(|job| job.requests[0].path = "/a b".into()).contains("path"));
        assert!(refusal(|job| job.requests[0].method = "G T".into()).contains("method"));
        assert!(refusal(|job| job.requests[0].method = "CONNECT".into()).contains("method"));
        let header = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        for (name, value) in [("a b", "x"), ("x", "a\nb"), ("Content-Length", "3")] {
            let headers = header(name, value);
            assert!(refusal(|job| job.requests[0].headers = headers).contains("header"), "{name}");
        }
        assert!(refusal(|job| job.requests[0].expect = vec![99]).contains("\"99\""));
    }

    #[test]
    fn a_job_without_sense_is_refused() {
        assert!(refusal(|job| job.connections = 0).contains("connections"));
        assert!(refusal(|job| job.duration = Duration::ZERO).contains("duration"));
        assert!(refusal(|job| job.duration = Duration::MAX).contains("duration"));
        assert!(refusal(|job| job.requests.clear()).contains("weights"));
        assert!(refusal(|job| job.requests[0].weight = f64::NAN).contains("weights"));
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(refusal(|job| job.rate = Some(rate)).contains("rate"));
        }
        let nowhere = Address::Tcp("no such host.invalid".into(), 80);
        assert!(refusal(|job| job.address = nowhere).contains("not found"));
    }
}
