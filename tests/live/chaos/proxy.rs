//! A faulty network: a TCP proxy between workers and their server that cuts, delays, fragments, swallows and refuses.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to bytes and connections from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They pass.
    Pass,
    /// They pass after a while.
    Delay(Duration),
    /// They pass a few at a time.
    Crumble,
    /// They pass, but calls of scripts are held back until this is over.
    HoldCalls,
    /// New connections are accepted and never answered.
    Silent,
    /// New connections are closed at once.
    Refuse,
}

/// The proxy; its connections end with it.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    /// Each connection leads to one of them.
    servers: Vec<u16>,
    mode: Mutex<Mode>,
    /// How many bytes may pass until everything is cut; negative: no cut is due.
    until_cut: AtomicI64,
    over: AtomicBool,
    open: Mutex<Vec<Connection>>,
}

struct Connection {
    /// The client's end, and the server's, if it was connected.
    ends: Vec<TcpStream>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Nothing passes any more, without either end being told.
    silent: AtomicBool,
    /// Both ends are closed.
    closed: AtomicBool,
}

impl Proxy {
    /// Listens on a free port, and forwards to the server on `server`.
    pub fn start(server: u16) -> Self {
        Self::between(&[server])
    }

    /// The same for several servers: each connection leads to any of them.
    pub fn between(servers: &[u16]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            servers: servers.to_vec(),
            mode: Mutex::new(Mode::Pass),
            until_cut: AtomicI64::new(-1),
            over: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.over.load(Ordering::Relaxed) {
                    return;
                }
                accepting.connect(client.unwrap());
            }
        });
        Self { port, shared }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    /// Cuts all connections once this many more bytes have passed, wherever that is.
    pub fn cut_after(&self, bytes: u32) {
        self.shared.until_cut.store(bytes.into(), Ordering::Relaxed);
    }

    /// Lets nothing pass over the existing connections any more; neither end notices.
    pub fn silence(&self) {
        for connection in &*self.shared.open.lock().unwrap() {
            connection.state.silent.store(true, Ordering::Relaxed);
        }
    }

    /// Cuts all connections now.
    pub fn cut(&self) {
        self.shared.cut();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        self.shared.cut();
        // Wakes the accepting thread; if this fails, it has ended already.
        let _woken = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Shared {
    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap()
    }

    /// Connects a client to a server. Any failure closes the connection, as in networks.
    fn connect(self: &Arc<Self>, client: TcpStream) {
        let state = Arc::<State>::default();
        match self.mode() {
            Mode::Refuse => return,
            Mode::Silent => return self.keep(vec![client], state),
            Mode::Pass | Mode::Delay(_) | Mode::Crumble | Mode::HoldCalls => {}
        }
        let server = self.servers[fastrand::usize(..self.servers.len())];
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else { return };
        for (from, to) in [(&client, &server), (&server, &client)] {
            to.set_nodelay(true).unwrap();
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            let (shared, state) = (Arc::clone(self), Arc::clone(&state));
            std::thread::spawn(move || shared.pump(from, to, &state));
        }
        self.keep(vec![client, server], state);
    }

    fn keep(&self, ends: Vec<TcpStream>, state: Arc<State>) {
        let mut open = self.open.lock().unwrap();
        open.retain(|connection| !connection.state.closed.load(Ordering::Relaxed));
        open.push(Connection { ends, state });
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, State { silent, closed }: &State) {
        let mut buffer = [0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if !silent.load(Ordering::Relaxed) && self.pass(&mut to, &buffer[..count]).is_err() {
                break;
            }
        }
        // A silent connection does not tell either end that the other is gone.
        if !silent.load(Ordering::Relaxed) {
            let _gone = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
            closed.store(true, Ordering::Relaxed);
        }
    }

    fn pass(&self, to: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
        let before = self.until_cut.fetch_sub(bytes.len() as i64, Ordering::Relaxed);
        if (0..bytes.len() as i64).contains(&before) {
            to.write_all(&bytes[..before as usize])?;
            self.cut();
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        match self.mode() {
            Mode::Crumble => bytes.chunks(3).try_for_each(|crumb| to.write_all(crumb)),
            Mode::Delay(time) => {
                std::thread::sleep(time);
                to.write_all(bytes)
            }
            Mode::HoldCalls => {
                let is_call = bytes.windows(5).any(|word| word == b"FCALL");
                while is_call && self.mode() == Mode::HoldCalls {
                    std::thread::sleep(Duration::from_millis(1));
                }
                to.write_all(bytes)
            }
            Mode::Pass | Mode::Silent | Mode::Refuse => to.write_all(bytes),
        }
    }

    fn cut(&self) {
        for end in self.open.lock().unwrap().drain(..).flat_map(|connection| connection.ends) {
            // It may be closed already.
            let _gone = end.shutdown(Shutdown::Both);
        }
    }
}
