//! What servers say, as kinds of trouble.

use super::*;

fn said(reply: &str) -> Error {
    let value = redis::parse_redis_value(format!("-{reply}\r\n").as_bytes()).unwrap();
    Error::at("asking")(value.extract_error().unwrap_err())
}

#[test]
fn a_command_that_is_gone_is_named_without_its_arguments() {
    for (reply, command) in [
        ("ERR unknown command 'evalsha', with args beginning with: 'hunter2' 'script' ", "EVALSHA"),
        ("ERR unknown command `CONFIG`, with args beginning with: ", "CONFIG"),
        (
            "ERR Unknown Redis command called from script script: ab, on @user_script:1.",
            "command that a",
        ),
        (
            "ERR Invalid command passed to redis.acl_check_cmd() script: ab, on @user_script:1.",
            "command that a",
        ),
        (
            "ERR Invalid command passed to server.acl_check_cmd() script: on @user_script:1.",
            "command that a",
        ),
    ] {
        let error = said(reply);
        let words = chain(&error);
        assert!(words.contains(&format!("has no {command}")), "{words}");
        assert!(!words.contains("hunter2"), "{words}");
        // The entry is not to blame.
        assert_eq!((error.verdict(), error.kind()), (Verdict::Reconnect, NO_COMMAND));
    }
    let failed = said("ERR user_script:3: attempt to index nil script: ab, on @user_script:3.");
    assert_eq!(failed.verdict(), Verdict::Poison);
}

#[test]
fn one_client_too_many_is_no_wrong_password() {
    assert_eq!(said("ERR max number of clients reached").kind(), MAXCLIENTS);
    assert_eq!(said("DENIED Redis is running in protected mode").kind(), DENIED);
}
