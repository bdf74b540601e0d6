//! A slow network: replies are delayed.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Forwards connections to `server`; each piece of a reply comes `delay` later. Ends with the test.
pub fn forward(server: u16, delay: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) =
                (client.unwrap(), TcpStream::connect(("127.0.0.1", server)).unwrap());
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || copy(from, to, Duration::ZERO));
            thread::spawn(move || copy(server, client, delay));
        }
    });
    port
}

fn copy(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let mut piece = [0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        thread::sleep(delay);
        if to.write_all(&piece[..count]).is_err() {
            return;
        }
    }
}
