//! The names in synthetic traffic: people, items, documents, browsers, addresses.

use fastrand::Rng;

const PEOPLE: [&str; 72] = [
    "ada", "akira", "alice", "amara", "anouk", "arjun", "aylin", "bao", "beatriz", "ben", "björk",
    "bruno", "carla", "chidi", "chloe", "dana", "diego", "dmitri", "eleni", "elif", "emil",
    "fatima", "felix", "freya", "gita", "goran", "grace", "hana", "hugo", "ibrahim", "ines",
    "ivan", "jack", "jamila", "jin", "jonas", "kaito", "karin", "kofi", "lars", "leila", "liam",
    "lucia", "maeve", "marco", "mei", "milan", "nadia", "nikhil", "nora", "olga", "omar", "oskar",
    "paula", "petra", "priya", "quentin", "rosa", "ruth", "samir", "sofia", "sven", "tariq",
    "teresa", "thabo", "uma", "viktor", "wanda", "xenia", "yusuf", "zara", "zoé",
];

const ITEMS: [&str; 24] = [
    "espresso-maker",
    "desk-lamp",
    "rain-jacket",
    "headphones",
    "cast-iron-pan",
    "trail-shoes",
    "notebook-a5",
    "field-guide",
    "wool-socks",
    "bike-bell",
    "tea-kettle",
    "camp-stove",
    "fountain-pen",
    "backpack-30l",
    "chess-set",
    "hammock",
    "sourdough-kit",
    "usb-c-hub",
    "picnic-rug",
    "yoga-mat",
    "globe",
    "binoculars",
    "ukulele",
    "atlas",
];

const DOCUMENTS: [&str; 12] = [
    "roadmap",
    "handbook",
    "budget",
    "minutes",
    "glossary",
    "design",
    "release-notes",
    "hiring",
    "retro",
    "onboarding",
    "incident-42",
    "offsite",
];

/// User agents as browsers send them.
pub(super) const USER_AGENTS: [&str; 5] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36",
];

/// The pages of the site besides items and documents.
pub(super) const PAGES: [&str; 6] = ["/", "/home", "/search", "/cart", "/orders", "/settings"];

/// The user with this number: a first name, followed by a number once the names are used up.
pub(super) fn user(number: u32) -> String {
    numbered(&PEOPLE, number, "-")
}

/// The item of this rank; 0 is the most popular.
pub(super) fn item(rank: u32) -> String {
    numbered(&ITEMS, rank, "-v")
}

/// The document of this rank; 0 is the most popular.
pub(super) fn document(rank: u32) -> String {
    numbered(&DOCUMENTS, rank, "-")
}

fn numbered(names: &[&str], number: u32, separator: &str) -> String {
    let many = u32::try_from(names.len()).unwrap_or(u32::MAX);
    let (round, name) = (number / many, names[(number % many) as usize]);
    if round == 0 { name.to_owned() } else { format!("{name}{separator}{}", round + 1) }
}

/// An address from networks reserved for documentation or private use, mostly IPv4.
pub(super) fn address(rng: &mut Rng) -> String {
    let host = rng.u8(1..255);
    match rng.u8(..10) {
        0..4 => format!("203.0.113.{host}"),
        4..7 => format!("198.51.100.{host}"),
        7..9 => format!("10.{}.{}.{host}", rng.u8(..8), rng.u8(..)),
        _ => format!("2001:db8:{:x}::{host:x}", rng.u16(1..)),
    }
}

/// A random rank below `many`. Rank k is about k + 1 times as rare as rank 0 (Zipf's law).
pub(super) fn popular(rng: &mut Rng, many: u32) -> u32 {
    let rank = (f64::from(many) + 1.0).powf(rng.f64()) - 1.0;
    // The cast truncates on purpose. The rank is small and not negative.
    (rank as u32).min(many.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_number_has_its_own_name() {
        assert_eq!(user(2), "alice");
        assert_eq!(user(74), "alice-2");
        let users: HashSet<String> = (0..1000).map(user).collect();
        assert_eq!(users.len(), 1000);
    }

    #[test]
    fn the_popular_are_far_more_popular() {
        let mut rng = Rng::with_seed(1);
        let mut counts = vec![0_u32; 100];
        for _ in 0..20_000 {
            counts[popular(&mut rng, 100) as usize] += 1;
        }
        assert!(counts[0] > 2 * counts[3] && counts[3] > 2 * counts[15], "{counts:?}");
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
        assert_eq!(popular(&mut rng, 1), 0);
    }
}
