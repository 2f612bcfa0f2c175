//! What the layer does for, and against, the service above it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use http::{Response, StatusCode};
use tracing::field::{Field, Visit};

use crate::config::HttpOptions;
use crate::http::Body;
use crate::http::tests::support::{Server, count_responses, echo, header, status, text, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test(flavor = "local")]
async fn a_panic_is_one_failed_request() {
    let server =
        Server::start(HttpOptions::default(), |request, connection| match request.uri().path() {
            "/call" => panic!("in the call"),
            "/poll" => Box::pin(async { panic!("in the future") }),
            "/later" => Box::pin(async {
                tokio::task::yield_now().await;
                panic!("after a suspension")
            }),
            _ => echo(request, connection),
        });
    for path in ["/call", "/poll", "/later"] {
        let reply = server.say(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!((status(&reply), count_responses(&reply)), (500, 1), "{path}");
        assert!(reply.ends_with(r#"{"detail":"Internal Server Error"}"#), "{reply}");
        assert_eq!(header(&reply, "connection"), Some("close"));
        let mut client = server.connect().await;
        client.send(GET).await;
        assert_eq!(client.response().await.1, "GET / ");
    }
    until(|| server.lane.open() == 0).await;
    assert_eq!(server.lane.meter().in_flight.get(), 0);
}

#[tokio::test(flavor = "local")]
async fn an_informational_status_is_no_response() {
    let server = Server::start(HttpOptions::default(), |_, _| {
        Box::pin(async {
            let mut response = text("");
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response
        })
    });
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n").await;
    assert_eq!(status(&client.response().await.0), 500);
}

#[tokio::test(flavor = "local")]
async fn the_service_knows_its_connection() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let see = Rc::clone(&seen);
    let server = Server::start(HttpOptions::default(), move |request, connection| {
        see.borrow_mut().push((connection.id(), connection.requests(), connection.peer()));
        echo(request, connection)
    });
    for _ in 0..2 {
        let mut client = server.connect().await;
        let address = crate::http::Peer::Tcp(client.stream.local_addr().expect("connected"));
        for n in 1..=2 {
            client.send(GET).await;
            client.response().await;
            let (_, requests, peer) = *seen.borrow().last().expect("one request");
            assert_eq!((requests, peer), (n, address));
        }
    }
    let ids = seen.borrow().iter().map(|(id, ..)| *id).collect::<Vec<_>>();
    assert_eq!(ids, [0, 0, 1, 1]);
}

/// Collects the access events of this thread, each as `name=value` words.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "treadle.access"
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Words(String);
        impl Visit for Words {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                if !matches!(field.name(), "duration_us" | "client") {
                    self.0 += &format!("{}={value:?} ", field.name());
                }
            }
        }
        let mut words = Words(String::new());
        event.record(&mut words);
        self.0.lock().expect("one thread").push(words.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(flavor = "local")]
async fn each_request_leaves_one_line_in_the_access_log() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let options = HttpOptions { access_log: true, ..HttpOptions::default() };
    let server = Server::start(options, |request, connection| match request.uri().path() {
        "/hang" => Box::pin(std::future::pending()),
        "/abort" => {
            let (sender, body) = crate::http::channel();
            sender.abort();
            Box::pin(async { Response::new(Body::Stream(body)) })
        }
        _ => echo(request, connection),
    });
    let mut client = server.connect().await;
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.response().await;
    client.send("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.until("\r\n\r\n").await;
    client.send("GET /abort HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.rest().await;
    let mut client = server.connect().await;
    client.send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(|| server.lane.meter().in_flight.get() == 1).await;
    drop(client);
    until(|| server.lane.open() == 0).await;
    let lines = log.0.lock().expect("one thread").clone();
    assert_eq!(
        lines,
        [
            r#"method="GET" path="/a" status=200 bytes=7 lane=0 complete=true "#,
            r#"method="HEAD" path="/a" status=200 bytes=0 lane=0 complete=true "#,
            r#"method="GET" path="/abort" status=200 bytes=0 lane=0 complete=false "#,
            r#"method="GET" path="/hang" status=499 bytes=0 lane=0 complete=false "#,
        ]
    );
}
