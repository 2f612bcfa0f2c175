//! Answers of connections that are ready at once: sent when all have been served, and no later.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::Response;
use tokio::io::AsyncWriteExt;

use crate::config::HttpOptions;
use crate::http::tests::support::{Client, Server, count_responses, text, until, within};
use crate::http::{Body, HttpLane};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// How many answers had been sent when each request was served.
type Seen = Rc<RefCell<Vec<u64>>>;

/// A server that does as the path says, and connections that have been served.
async fn start(connections: usize) -> (Server, Seen, Vec<Client>) {
    let seen = Seen::default();
    let lane = Rc::new(RefCell::new(None::<Rc<HttpLane>>));
    let (noted, known) = (Rc::clone(&seen), Rc::clone(&lane));
    let server = Server::start(HttpOptions::default(), move |request, _| {
        if let Some(lane) = &*known.borrow() {
            noted.borrow_mut().push(lane.meter().sends.get());
            match request.uri().path() {
                "/drain" => lane.drain(),
                "/abort" => lane.abort_all(),
                "/slow" => {
                    let since = Instant::now();
                    while since.elapsed() < Duration::from_millis(1) {}
                }
                _ => {}
            }
        }
        Box::pin(async { text("ok") })
    });
    let mut clients = Vec::new();
    for _ in 0..connections {
        let mut client = server.connect().await;
        client.send(get("/")).await;
        client.response().await;
        clients.push(client);
    }
    lane.replace(Some(Rc::clone(&server.lane)));
    (server, seen, clients)
}

/// Sends a request on each connection before the lane sees the first; how many answers had been
/// sent, of these, when each was served.
async fn round(seen: &Seen, sent: u64, clients: &mut [Client], paths: &[&str]) -> Vec<u64> {
    seen.borrow_mut().clear();
    for (client, path) in clients.iter_mut().zip(paths) {
        client.send(get(path)).await;
    }
    for client in clients {
        assert_eq!(client.response().await.1, "ok");
    }
    seen.borrow().iter().map(|seen| seen - sent).collect()
}

#[tokio::test(flavor = "local")]
async fn what_is_ready_at_once_is_served_before_the_first_answer_goes_out() {
    let (server, seen, mut clients) = start(3).await;
    // A round in which the machine was busy elsewhere proves nothing.
    within(async {
        loop {
            let sent = server.lane.meter().sends.get();
            if round(&seen, sent, &mut clients, &["/"; 3]).await == [0, 0, 0] {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "local")]
async fn a_lane_whose_handlers_take_long_sends_answers_at_once() {
    let (server, seen, mut clients) = start(3).await;
    let paths = ["/", "/slow", "/slow"];
    // Each round that keeps an answer waiting lets the lane rest for twice as long.
    within(async {
        loop {
            let sent = server.lane.meter().sends.get();
            if round(&seen, sent, &mut clients, &paths).await == [0, 1, 2] {
                break;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "local")]
async fn an_only_connection_waits_for_nobody() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (server, _, mut clients) = start(1).await;
    let before = tasks();
    clients[0].send(get("/")).await;
    clients[0].response().await;
    // Nobody was made to send what waits.
    assert_eq!(tasks(), before);
    let mut other = server.connect().await;
    for client in [&mut other, &mut clients[0]] {
        client.send(get("/")).await;
        client.response().await;
    }
    assert_eq!(tasks(), before + 2);
}

#[tokio::test(flavor = "local")]
async fn a_client_that_sends_its_end_behind_the_request_is_answered_and_let_go() {
    let (server, _, mut clients) = start(2).await;
    for client in &mut clients {
        client.send(get("/")).await;
        client.stream.shutdown().await.expect("a socket");
    }
    for client in &mut clients {
        assert_eq!(count_responses(&client.rest().await), 1);
    }
    until(|| server.lane.open() == 0).await;
}

#[tokio::test(flavor = "local")]
async fn a_client_that_reads_slowly_gets_every_answer_whole() {
    let server = Server::start(HttpOptions::default(), |_, _| {
        Box::pin(async { Response::new(Body::Full(vec![b'x'; 15_000].into())) })
    });
    let mut clients = [server.connect().await, server.connect().await];
    for _ in 0..500 {
        for client in &mut clients {
            client.send(get("/")).await;
        }
    }
    until(|| server.lane.meter().requests.get() > 100).await;
    for _ in 0..500 {
        for client in &mut clients {
            assert_eq!(client.response().await.1.len(), 15_000);
        }
    }
}

#[tokio::test(flavor = "local")]
async fn a_lane_that_ends_sends_what_it_holds() {
    for end in ["/drain", "/abort"] {
        let (server, _, mut clients) = start(2).await;
        for (client, path) in clients.iter_mut().zip(["/", end]) {
            client.send(get(path)).await;
        }
        for client in &mut clients {
            assert_eq!(count_responses(&client.rest().await), 1, "{end}");
        }
        within(server.lane.wait_empty()).await;
    }
}
