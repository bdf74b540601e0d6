//! The feed of new entries: against real servers, over every kind of connection, and against impostors.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use rollcall::config::{Config, Gathered, RedisConfig, Server, Shell};
use rollcall::entry::{Entry, EntryId, Field, Oversize};
use rollcall::error::{Error, Verdict, chain};
use rollcall::event::Limits;
use rollcall::private_server::{Options, PrivateServer};
use rollcall::redis::connect::connect;
use rollcall::redis::feed::Feed;
use rollcall::redis::feed::parse::Bounds;
use rollcall::redis::stream::read_after;

use crate::chaos::proxy::{Mode, Proxy};
use crate::harness::read_stream;
use crate::scene::{SOON, add, giant, try_command};
use crate::support::dump;
use crate::support::events::{Events, field};

const STREAM: &str = "s";

fn server(url: &str) -> Server {
    RedisConfig::new(url.to_owned().into(), None, None).unwrap().server()
}

fn shell(url: &str) -> Shell {
    let config = Config::resolve(&Gathered::from_flags([("redis-url", url)]).unwrap()).unwrap();
    Shell::of(&config.redis, &config.deployment)
}

async fn open(url: &str) -> Result<Feed, Error> {
    Feed::open(&server(url).current().unwrap(), SOON).await
}

/// Everything is kept, whatever its size.
const AMPLE: Bounds = Bounds { pairs: 1 << 20, entry_bytes: 1 << 30, reply_bytes: 1 << 30 };
const BEGINNING: EntryId = EntryId { ms: 0, seq: 0 };

/// Up to `count` entries after one.
async fn read(
    feed: &mut Feed,
    after: EntryId,
    count: usize,
    bounds: Bounds,
) -> Result<Vec<Entry>, Error> {
    let command = read_after(STREAM, after, count, Duration::from_millis(1));
    Ok(feed.read(&command, bounds, None).await?.entries)
}

/// Everything that exists, this many at a time.
async fn read_all(url: &str, count: usize, bounds: Bounds) -> Vec<Entry> {
    let mut feed = open(url).await.unwrap();
    let mut all: Vec<Entry> = Vec::new();
    loop {
        let after = all.last().map_or(BEGINNING, |entry| entry.id);
        let entries = read(&mut feed, after, count, bounds).await.unwrap();
        if entries.is_empty() {
            return all;
        }
        all.extend(entries);
    }
}

/// Random events, and entries of odd forms; all of them small.
fn small() -> impl Iterator<Item = Vec<Field>> {
    let mut events = Events::new(1, 1_790_000_000_000);
    let odd: [(&[u8], &[u8]); 5] =
        [(b"b", b"\r\n$-1\r\n"), (b"a", b""), (b"b", b"\r"), (b"", b"\n"), (b"\xff\0", b"*1")];
    let odd = odd.map(|(name, value)| (name.to_vec(), value.to_vec())).to_vec();
    (0..100).map(move |_| events.entry().1).chain([odd, giant()])
}

#[tokio::test]
async fn entries_arrive_unchanged_however_they_come() {
    let options = Options { unix_socket: true, ..Options::default() };
    let server = PrivateServer::start(options).unwrap();
    let proxy = Proxy::start(server.port());
    let mut conn = dump::connect(&server.url());
    for fields in small() {
        add(&mut conn, STREAM, &fields);
    }
    proxy.set(Mode::Crumble);
    let crumbled = read_all(&proxy.url(), 64, AMPLE).await;
    assert_eq!(crumbled, read_stream(&mut conn, STREAM));
    for bytes in [1 << 20, 24 << 20, 100 << 10] {
        add(&mut conn, STREAM, &[field("data", &"x".repeat(bytes)), field("a", "b")]);
    }
    for fields in small() {
        add(&mut conn, STREAM, &fields);
    }
    let expected = read_stream(&mut conn, STREAM);
    for url in [server.url(), server.unix_url().unwrap()] {
        for count in [1, 7, 1_000] {
            let entries = read_all(&url, count, AMPLE).await;
            assert!(entries == expected, "{url}, {count} at a time");
        }
    }
}

#[tokio::test]
async fn of_what_is_too_large_only_the_measures_arrive_and_the_rest_unchanged() {
    let server = PrivateServer::start(Options::default()).unwrap();
    let mut conn = dump::connect(&server.url());
    let limits = Limits::default();
    let (most, large) = (limits.most_bytes(), "x".repeat(limits.most_bytes()));
    add(&mut conn, STREAM, &[field("a", "b")]);
    let whole = add(&mut conn, STREAM, &[field("", &large)]);
    let over = add(&mut conn, STREAM, &[field("a", "b"), field("c", &large)]);
    let pairs = giant();
    let many = add(&mut conn, STREAM, &pairs);
    add(&mut conn, STREAM, &[field("a", "b")]);
    let bytes = pairs.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum();
    let mut expected = read_stream(&mut conn, STREAM);
    assert_eq!((expected[1].id, expected[1].size()), (whole, most), "as large as may be");
    expected[2] = Entry::oversized(over, Oversize { pairs: 2, bytes: most as u64 + 3 });
    expected[3] = Entry::oversized(many, Oversize { pairs: pairs.len(), bytes });
    for count in [1, 5] {
        let entries = read_all(&server.url(), count, Bounds::new(&limits, 1)).await;
        assert!(entries == expected, "{count} at a time");
    }
}

#[tokio::test]
async fn user_and_database_are_those_of_the_url_and_refusals_those_of_the_library() {
    let guarded = PrivateServer::start(Options::default()).unwrap();
    let mut conn = dump::connect(&guarded.url());
    for user in ["al on >p@ss ~* +@all", "eve on >p@ss ~* -@all +exists +select"] {
        let words: Vec<&str> = user.split(' ').collect();
        redis::cmd("ACL").arg("SETUSER").arg(&words).exec(&mut conn).unwrap();
    }
    redis::cmd("SELECT").arg(3).exec(&mut conn).unwrap();
    add(&mut conn, STREAM, &[field("a", "b")]);
    let address = format!("127.0.0.1:{}", guarded.port());
    let right = format!("redis://al:p%40ss@{address}/3");
    assert_eq!(read_all(&right, 10, AMPLE).await, read_stream(&mut conn, STREAM));
    try_command::<()>(&mut conn, &["CONFIG", "SET", "requirepass", "p@ss"]).unwrap();
    assert_eq!(read_all(&format!("redis://:p%40ss@{address}/3"), 10, AMPLE).await.len(), 1);

    for (login, path, kind, words) in [
        ("al:wrong@", "/3", "auth", "Password authentication failed"),
        ("al:p%40ss@", "/99", "other", "DB index is out of range"),
        ("eve:p%40ss@", "/3", "permission", "no permissions"),
    ] {
        let url = format!("redis://{login}{address}{path}");
        let error = match open(&url).await {
            Ok(mut feed) => read(&mut feed, BEGINNING, 10, AMPLE).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), kind, "{url}: {error:?}");
        assert!(chain(&error).contains(words), "{url}: {}", chain(&error));
        if let Err(by_library) = connect(&server(&url), STREAM, SOON).await {
            assert_eq!(error.kind(), by_library.kind(), "{url}: {by_library:?}");
        }
    }
}

/// Answers one connection with these bytes, and closes it if told to.
fn impostor(answer: &'static [u8], hangs_up: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut command = [0; 1_024];
        assert!(client.read(&mut command).unwrap() > 0);
        client.write_all(answer).unwrap();
        // Until the client closes it.
        while !hangs_up && matches!(client.read(&mut command), Ok(1..)) {}
    });
    format!("127.0.0.1:{port}")
}

#[tokio::test]
async fn what_is_no_redis_is_refused_and_what_says_no_more_is_given_up() {
    const PATIENCE: Duration = Duration::from_millis(300);
    for (answer, hangs_up, kind, words) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            false,
            "other",
            r"reply: HTTP/1.1 400 Bad Request\r\n",
        ),
        (b"*1\r\n*2\r\n$1\r\ns\r\n*1\r\n:7\r\n", false, "other", r"reply: :7\r\n"),
        (b"*1\r\n*2\r\n$2147483648\r\n", false, "other", r"reply: $2147483648\r\n"),
        (b"*1\r\n*2\r\n$1073741824\r\nabc", false, "timeout", "timed out"),
        (b"*1\r\n*2\r\n$1\r\ns\r\n*1000000000\r\n", false, "timeout", "timed out"),
        (b"", false, "timeout", "timed out"),
        (b"*1\r\n*2\r\n", true, "connection", "end of file"),
        (b"", true, "connection", "end of file"),
    ] {
        let url = format!("redis://{}", impostor(answer, hangs_up));
        let mut feed = Feed::open(&server(&url).current().unwrap(), PATIENCE).await.unwrap();
        let error = read(&mut feed, BEGINNING, 10, AMPLE).await.unwrap_err();
        let said = chain(&error);
        assert_eq!((error.kind(), error.verdict()), (kind, Verdict::Reconnect), "{said}");
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[tokio::test]
async fn a_server_s_words_about_a_password_are_not_repeated() {
    for (answer, kind) in [
        (&b"-ERR unknown command 'AUTH', with args beginning with: 'hunter2'\r\n"[..], "auth"),
        (b"-hunter2 is wrong\r\n", "auth"),
        (b"220 mail.example ESMTP\r\n", "other"),
        (b"500 AUTH hunter2?\r\n", "other"),
        (b"*2\r\n$4\r\nAUTH\r\n$7\r\nhunter2\r\n", "connection"),
    ] {
        let url = format!("redis://:hunter2@{}", impostor(answer, false));
        let error = open(&url).await.err().unwrap();
        let said = chain(&error) + &format!("{error:?}") + &error.hindrance(&shell(&url));
        assert_eq!(error.kind(), kind, "{said}");
        assert!(
            said.starts_with("connecting to 127.0.0.1:") && !said.contains("hunter2"),
            "{said}"
        );
    }
}
