//! Events from clients, turned into events of the stream.

use serde_json::Value;

use crate::event::{
    Heartbeat, Kind, Login, Members, Name, Reason, Session as SessionEvent, SessionAction,
};
use crate::format::{Format, Member};
use crate::serve::intake::Sender;
use crate::serve::live::tell::is_room;
use crate::serve::problem::Problem;
use crate::serve::routes::may_end_session;
use crate::serve::{Caller, Client, Context};

/// A client's request.
#[derive(Debug)]
pub(super) enum Wish {
    /// To enter a room.
    Join(String),
    /// To leave it.
    Leave(String),
    /// To add an event of the stream.
    Send(Sent),
}

/// The events that become events of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    Heartbeat,
    Login,
    Logout,
    Terminate,
}

/// An event and its members.
#[derive(Debug)]
pub(super) struct Sent {
    sending: Sending,
    json: Vec<u8>,
}

/// The sender.
pub(super) struct From<'a> {
    pub(super) context: &'a Context,
    pub(super) caller: &'a Caller,
    pub(super) client: Client,
    pub(super) sender: &'a Sender,
}

impl Wish {
    /// The request in an event with this data; `None` if there is no such event.
    pub(super) fn read(event: &str, data: &Value) -> Option<Result<Self, String>> {
        let sending = match event {
            "join-room" => return Some(room(data).map(Self::Join)),
            "leave-room" => return Some(room(data).map(Self::Leave)),
            "user:heartbeat" => Sending::Heartbeat,
            "user:login" => Sending::Login,
            "user:logout" => Sending::Logout,
            "session:terminate" => Sending::Terminate,
            _ => return None,
        };
        let json = data.is_object().then(|| data.to_string().into_bytes());
        let sent = json.map(|json| Self::Send(Sent { sending, json }));
        Some(sent.ok_or_else(|| format!("{event} takes one object")))
    }
}

/// The room in the data; `admin` if none is named.
fn room(data: &Value) -> Result<String, String> {
    let room = match data {
        Value::Null => None,
        Value::Object(members) => members.get("room").filter(|room| !room.is_null()),
        _ => return Err("a room is named as {\"room\": \"…\"}".to_owned()),
    };
    match room.map_or(Some(crate::changes::rooms::ADMIN), Value::as_str) {
        Some(room) if is_room(room) => Ok(room.to_owned()),
        _ => Err("unknown room; the rooms are admin, user:<user> and doc:<document>".to_owned()),
    }
}

impl Sent {
    /// Adds the event to the stream.
    ///
    /// # Errors
    /// If it may not be sent, is not an event, or is not certainly on the stream.
    pub(super) async fn add(self, from: From<'_>) -> Result<(), Problem> {
        let From { context, caller, client, sender } = from;
        context.check_right(caller)?;
        let limits = context.state.facts().deployment.limits.clone();
        let ip = client.0.to_string();
        let kind = self.kind(&limits, sender, &ip)?;
        if let Kind::Session(SessionEvent { sid, .. }) = &kind {
            may_end_session(context, caller, sid).await?;
        }
        context.check_rate(caller, client, 1)?;
        context.intake.add(kind, sender).await?;
        Ok(())
    }

    fn kind<'a>(
        &'a self,
        limits: &crate::event::Limits,
        sender: &'a Sender,
        ip: &'a str,
    ) -> Result<Kind<'a>, Problem> {
        let names: &[Name] = match self.sending {
            Sending::Heartbeat => &[Name::User, Name::Page],
            Sending::Login => &[Name::User, Name::Token],
            Sending::Logout => &[Name::User],
            Sending::Terminate => &[Name::Sid, Name::User],
        };
        let mut members = Members::default();
        let each = |name: &[u8], member| {
            if names.iter().any(|known| known.name().as_bytes() == name) {
                members.add(name, member);
            }
        };
        let read = Format::Json.members(&self.json, each);
        read.map_err(|malformed| Problem::bad_request(format!("the event {malformed}")))?;
        if let Some(subject) = &sender.subject {
            members.add(b"user", Member::flat(subject.as_bytes()));
        }
        let read = |wire: &str, members: &Members<'a>| {
            Kind::read(wire.as_bytes(), members, limits).map_err(|rejection| {
                let wanted = if wire == "session" { "Session ID" } else { "User" };
                match rejection.reason {
                    Reason::MissingField => Problem::bad_request(format!("{wanted} required")),
                    _ => Problem::bad_request(rejection.detail),
                }
            })
        };
        match self.sending {
            Sending::Heartbeat => read("heartbeat", &members),
            Sending::Login if members.get(Name::Token).is_some() => read("login", &members),
            // Without a token, a login is only a sign of life.
            Sending::Login => match read("heartbeat", &members)? {
                Kind::Heartbeat(heartbeat) => {
                    Ok(Kind::Heartbeat(Heartbeat { page: Login::PAGE.into(), ..heartbeat }))
                }
                other => Ok(other),
            },
            Sending::Logout => {
                // It ends the presence that this connection's heartbeats began.
                members.add(b"ip", Member::flat(ip.as_bytes()));
                read("logout", &members)
            }
            Sending::Terminate => match read("session", &members)? {
                Kind::Session(session) => {
                    Ok(Kind::Session(SessionEvent { action: SessionAction::Terminate, ..session }))
                }
                other => Ok(other),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wish(event: &str, data: Value) -> Option<Result<Wish, String>> {
        Wish::read(event, &data)
    }

    #[test]
    fn a_room_is_admin_unless_another_is_named() {
        for (data, room) in [
            (Value::Null, "admin"),
            (json!({}), "admin"),
            (json!({"room": "admin"}), "admin"),
            (json!({"room": "user:a b"}), "user:a b"),
            (json!({"room": "doc:doc:"}), "doc:doc:"),
        ] {
            let found = wish("join-room", data);
            assert!(matches!(found, Some(Ok(Wish::Join(found))) if found == room));
        }
        for data in
            [json!("admin"), json!({"room": 5}), json!({"room": "user:"}), json!({"room": "x"})]
        {
            assert!(matches!(wish("leave-room", data), Some(Err(_))));
        }
    }

    fn kind(event: &str, data: Value) -> Result<String, String> {
        let Some(Ok(Wish::Send(sent))) = wish(event, data) else { panic!("{event}") };
        let (limits, sender) = (crate::config::Limits::default(), Sender::default());
        let kind = sent.kind(&limits, &sender, "10.0.0.7").map_err(|problem| problem.detail)?;
        let mut json = String::new();
        kind.write_json(crate::time::EventTime::from_millis(1_790_000_000_000), &mut json);
        Ok(json.replace(r#","time":1790000000000"#, ""))
    }

    #[test]
    fn events_of_clients_are_events_of_the_stream() {
        let is = |event: &str, data: Value, json: &str| {
            assert_eq!(kind(event, data), Ok(json.to_owned()));
        };
        let ann = || json!({"user": "ann", "page": "/p", "ip": "1.1.1.1", "sid": "s"});
        is("user:heartbeat", ann(), r#"{"type":"heartbeat","user":"ann","page":"/p"}"#);
        is("user:login", ann(), r#"{"type":"heartbeat","user":"ann","page":"/"}"#);
        let token = json!({"user": "ann", "token": "t"});
        is("user:login", token, r#"{"type":"login","user":"ann","token":"t"}"#);
        is("user:logout", ann(), r#"{"type":"logout","user":"ann","ip":"10.0.0.7"}"#);
        let json = r#"{"type":"session","sid":"s","user":"ann","action":"terminate"}"#;
        is("session:terminate", ann(), json);
        assert_eq!(kind("user:heartbeat", json!({"page": "/"})), Err("User required".to_owned()));
        let no_sid = json!({"user": "ann"});
        assert_eq!(kind("session:terminate", no_sid), Err("Session ID required".to_owned()));
        assert!(kind("user:logout", json!({"user": 5})).is_err());
        assert!(matches!(wish("user:login", json!("ann")), Some(Err(_))));
        assert!(wish("user:unknown", json!({})).is_none());
    }
}
