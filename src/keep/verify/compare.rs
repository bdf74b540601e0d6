//! The comparison of one partition.

use std::sync::Arc;
use std::time::Instant;

use redis::Value;

use super::Order;
use super::claims::Index;
use super::finding::{Fault, Finding};
use super::judge::{Court, Verdicts};
use super::mend::Held;
use super::names::{KeyNames, Met, Names, Page, minutes};
use super::report::{Difference, Progress, Report};
use super::shadow::Shadow;
use super::table::{Family, Reads, score_ms};
use crate::entry::EntryId;
use crate::redis::reply;
use crate::redis::scripts::sweep::Sweeper;
use crate::seal::Ring;
use crate::state::{AskError, Link, number};

/// How many names are compared at once.
const PAGE: usize = 100;
/// How many bytes of session data are read at once.
const PAGE_BYTES: u64 = 256 << 10;
/// How many differences are kept.
const MOST_FINDINGS: usize = 100_000;
/// How many connections that have expired and wait for the janitor are read.
const MOST_EXPIRED: &str = "1000";

/// The comparison of one partition.
pub(super) struct Comparison {
    pub(super) shadow: Shadow,
    partition: u16,
    horizon_ms: u64,
    sweeper: Sweeper,
    ring: Option<Arc<Ring>>,
    met: Met,
    pub(super) verdicts: Verdicts,
    unlisted: u64,
    /// The partition, while it is being repaired.
    pub(super) held: Option<Held>,
}

impl Comparison {
    pub(super) fn new(
        shadow: Shadow,
        order: &Order,
        ring: Option<Arc<Ring>>,
        partition: u16,
    ) -> Self {
        let sweeper = Sweeper::new(&shadow.deployment, &shadow.keys, &order.janitor);
        let (met, verdicts) = (Met::default(), Verdicts::default());
        let horizon_ms = order.janitor.horizon_ms;
        let (unlisted, held) = (0, None);
        Self { shadow, partition, horizon_ms, sweeper, ring, met, verdicts, unlisted, held }
    }

    /// Gives the partition back, and removes the shadow.
    pub(super) async fn end(mut self) -> Result<(), AskError> {
        let released = self.release().await;
        let removed = self.shadow.end().await;
        released.and(removed)
    }

    /// Whether there is session data that cannot be decrypted.
    pub(super) fn is_closed(&self) -> bool {
        self.verdicts.has_closed
    }

    pub(super) fn difference(&self, finding: Finding) -> Difference {
        Difference::new(self.partition, finding)
    }

    /// Compares everything.
    pub(super) async fn run(
        &mut self,
        report: &mut Report,
        tell: &mut impl FnMut(&Progress),
    ) -> Result<(), AskError> {
        self.find(report, tell).await?;
        self.tell_of(report);
        Ok(())
    }

    /// Forgets the results.
    pub(super) fn begin_again(&mut self) {
        (self.met, self.verdicts) = Default::default();
    }

    /// Adds the findings to the report.
    pub(super) fn tell_of(&mut self, report: &mut Report) {
        report.checked += self.verdicts.checked;
        report.older += self.verdicts.older;
        report.entries += self.shadow.entries;
        report.unlisted += self.unlisted;
        let found = std::mem::take(&mut self.verdicts.findings);
        report.differences.extend(found.into_iter().map(|finding| self.difference(finding)));
    }

    /// Finds the differences, with the entries that should have won.
    pub(super) async fn find(
        &mut self,
        report: &Report,
        tell: &mut impl FnMut(&Progress),
    ) -> Result<(), AskError> {
        let deleted = self.shadow.deleted().await?;
        let (_, cursor) = self.shadow.look_live(&[]).await?;
        while self.shadow.step(cursor).await? {
            tell(&self.progress(report));
        }
        self.shadow.since = self.shadow.since.max(deleted.unwrap_or(self.shadow.since));
        self.walk(report, tell).await?;
        self.hear_entries().await?;
        self.settle(deleted).await
    }

    pub(super) fn progress(&self, before: &Report) -> Progress {
        Progress {
            partition: self.partition,
            entries: before.entries + self.shadow.entries,
            checked: before.checked + self.verdicts.checked,
            differing: (before.differences.len() + self.verdicts.findings.len()) as u64,
            mended: 0,
        }
    }

    async fn walk(
        &mut self,
        report: &Report,
        tell: &mut impl FnMut(&Progress),
    ) -> Result<(), AskError> {
        let link = Link::from(self.shadow.connection.clone());
        let (live, shadow) = (self.shadow.live.clone(), self.shadow.keys.clone());
        let deployment = self.shadow.deployment.clone();
        let now_ms = self.shadow.now_ms().await?;
        let keys = minutes(&deployment, now_ms).map(|minute| minute.to_string()).collect();
        self.compare((Family::MinuteKey, keys)).await?;
        for side in [&shadow, &live] {
            let mut names = Names::new(side, &deployment, now_ms, link.clone());
            let mut visit = async |page: Page| {
                self.compare(page).await?;
                tell(&self.progress(report));
                Ok(())
            };
            while names.next(&mut visit).await? {}
        }
        let mut keys = KeyNames::new(&live, &shadow);
        while let Some(pages) = keys.page(&mut self.shadow.connection).await? {
            let docs = pages[2].1.clone();
            for page in pages {
                self.compare(page).await?;
            }
            let mut names = Names::of_documents(&live, &docs, link.clone());
            let mut visit = async |page: Page| self.compare(page).await;
            while names.next(&mut visit).await? {}
            tell(&self.progress(report));
        }
        Ok(())
    }

    /// Compares the names that were not compared before.
    async fn compare(&mut self, (family, names): Page) -> Result<(), AskError> {
        let names = self.met.first(family, names);
        for page in names.chunks(PAGE) {
            let begun = Instant::now();
            self.compare_now(family, page).await?;
            // Other clients get their turn.
            tokio::time::sleep(begun.elapsed() / 2).await;
        }
        Ok(())
    }

    /// The same without a pause, including names that were compared before.
    pub(super) async fn compare_now(
        &mut self,
        family: Family,
        names: &[String],
    ) -> Result<(), AskError> {
        for page in names.chunks(PAGE) {
            if family == Family::Session {
                for page in self.weigh(page).await? {
                    self.compare_page(family, &page).await?;
                }
            } else {
                self.compare_page(family, page).await?;
            }
        }
        Ok(())
    }

    /// Sessions in groups whose data is not too large for one read.
    async fn weigh(&mut self, sids: &[String]) -> Result<Vec<Vec<String>>, AskError> {
        let base = self.shadow.live.session_data();
        let keys: Vec<String> = sids.iter().map(|sid| format!("{base}{sid}")).collect();
        let reads: Vec<Vec<&str>> = keys.iter().map(|key| vec!["STRLEN", key]).collect();
        let (looked, _) = self.shadow.look_live(&reads).await?;
        let (mut groups, mut bytes) = (vec![Vec::new()], 0);
        for (sid, length) in sids.iter().zip(&looked.replies) {
            bytes += number(length).unwrap_or(0);
            if bytes > PAGE_BYTES {
                groups.push(Vec::new());
                bytes = number(length).unwrap_or(0);
            }
            if let Some(group) = groups.last_mut() {
                group.push(sid.clone());
            }
        }
        Ok(groups)
    }

    async fn compare_page(&mut self, family: Family, names: &[String]) -> Result<(), AskError> {
        if names.is_empty() {
            return Ok(());
        }
        let deployment = self.shadow.deployment.clone();
        let [live, shadow] = [self.shadow.live.clone(), self.shadow.keys.clone()];
        let reads = Reads::new(family, &live, &deployment, names);
        let aside = Aside::of(family, &live, self.shadow.now_ms().await?, &deployment);
        let words: Vec<_> = reads.words().into_iter().chain(aside.words()).collect();
        let (mut looked, cursor) = self.shadow.look_live(&words).await?;
        let found = looked.replies.split_off(reads.words().len());
        let live_rows = reads.rows(looked.replies);
        let mut facts = Facts::read(family, found, &deployment);

        self.shadow.advance(cursor).await?;
        if facts.has_expiring {
            let connection = &mut self.shadow.connection;
            while self.sweeper.sweep(connection, "documents", 1000).await?.more {}
        }
        let reads = Reads::new(family, &shadow, &deployment, names);
        let aside = Aside::of(family, &shadow, looked.now_ms, &deployment);
        let words: Vec<_> = reads.words().into_iter().chain(aside.words()).collect();
        let mut said = self.shadow.look(&words).await?;
        let found = said.replies.split_off(reads.words().len());
        let said_rows = reads.rows(said.replies);
        facts.expired.extend(Facts::read(family, found, &deployment).expired);

        let court = Court {
            deployment: &deployment,
            keys: &live,
            horizon_ms: self.horizon_ms,
            since: self.shadow.since,
            now_ms: looked.now_ms.max(said.now_ms),
            evicted_below_ms: facts.evicted_below_ms,
            drops_items: facts.drops_items,
            ring: self.ring.clone(),
        };
        for ((name, live), said) in names.iter().zip(&live_rows).zip(&said_rows) {
            if !facts.is_open(family, name) {
                court.judge(family, name, (live, said), &mut self.verdicts);
            }
        }
        let findings = &mut self.verdicts.findings;
        self.unlisted += findings.len().saturating_sub(MOST_FINDINGS) as u64;
        findings.truncate(MOST_FINDINGS);
        Ok(())
    }

    /// Reads the entries once more, and collects what each says about the differences.
    async fn hear_entries(&mut self) -> Result<(), AskError> {
        if self.verdicts.findings.is_empty() {
            return Ok(());
        }
        let index = Index::new(&self.verdicts.findings);
        let (_, cursor) = self.shadow.look_live(&[]).await?;
        self.shadow.advance(cursor).await?;
        let mut after = EntryId { ms: 0, seq: 0 };
        loop {
            let begun = Instant::now();
            let entries = self.shadow.read(after, cursor).await?;
            let Some(last) = entries.last() else { return Ok(()) };
            after = last.id;
            let took = begun.elapsed();
            for entry in &entries {
                let plan = self.shadow.plan(std::slice::from_ref(entry));
                let about = (entry.id, &self.shadow.deployment);
                index.hear(&plan, about, &mut self.verdicts.findings);
            }
            // Other clients get their turn.
            tokio::time::sleep(took / 2).await;
        }
    }

    /// Removes findings that are not differences after all.
    async fn settle(&mut self, deleted_before: Option<EntryId>) -> Result<(), AskError> {
        let (now_ms, deleted) = (self.shadow.now_ms().await?, self.shadow.deleted().await?);
        let skew = self.shadow.deployment.max_skew_ms;
        let since = if deleted > deleted_before { deleted } else { None };
        // A deleted entry may have caused it.
        let is_unsure = |finding: &Finding| {
            let t = finding.live.as_ref().map_or(0, |live| live.t);
            finding.fault == Fault::Ahead && since.is_some_and(|id| t <= id.ms + skew)
        };
        let mut older = 0;
        self.verdicts.findings.retain(|finding| {
            let is_gone = finding.evidence.best.is_none() && finding.fault == Fault::Behind;
            let stands = finding.stands(now_ms) && !is_unsure(finding);
            older += u64::from(!stands && (is_gone || is_unsure(finding)));
            stands
        });
        self.verdicts.older += older;
        Ok(())
    }
}

/// Reads in addition to those of a page, at the same instant.
struct Aside(Vec<Vec<String>>);

impl Aside {
    fn of(
        family: Family,
        keys: &crate::key::Keys,
        now_ms: u64,
        deployment: &crate::config::Deployment,
    ) -> Self {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Self(match family {
            Family::Token | Family::Item => vec![
                words(&["ZCARD", &keys.recent()]),
                words(&["ZCARD", &keys.tokens_ended()]),
                words(&["ZRANGE", &keys.recent(), "0", "0", "WITHSCORES"]),
                words(&["ZCARD", &keys.viewed()]),
            ],
            // Includes those that expire while the two sides are being read.
            Family::Pair | Family::Document => {
                let bound = (now_ms + EXPIRING_MS).saturating_sub(deployment.document_ttl_ms);
                let (key, bound) = (keys.docs_joined(), bound.to_string());
                vec![words(&["ZRANGEBYSCORE", &key, "-inf", &bound, "LIMIT", "0", MOST_EXPIRED])]
            }
            _ => Vec::new(),
        })
    }

    fn words(&self) -> impl Iterator<Item = Vec<&str>> {
        self.0.iter().map(|words| words.iter().map(String::as_str).collect())
    }
}

/// The time limit of a page.
const EXPIRING_MS: u64 = 2_000;

/// The results of the additional reads.
#[derive(Default)]
struct Facts {
    evicted_below_ms: u64,
    drops_items: bool,
    /// Connections that have expired, or will in a moment.
    expired: Vec<String>,
    has_expiring: bool,
}

impl Facts {
    fn read(family: Family, replies: Vec<Value>, deployment: &crate::config::Deployment) -> Self {
        let mut replies = replies.into_iter();
        match family {
            Family::Token | Family::Item => {
                let cards = [replies.next(), replies.next()];
                let [recent, ended] = cards.map(|n| n.as_ref().and_then(number).unwrap_or(0));
                let first = replies.next().map(reply::pairs).unwrap_or_default();
                let lowest = first.and_then(|pairs| {
                    let score = pairs.into_iter().next()?.1;
                    reply::text(score)?.parse().ok().map(score_ms)
                });
                let items = replies.next().as_ref().and_then(number).unwrap_or(0);
                let evicts = recent + ended >= deployment.recent_cap;
                Self {
                    evicted_below_ms: lowest.filter(|_| evicts).unwrap_or(0),
                    drops_items: items >= deployment.ranking_cap,
                    ..Self::default()
                }
            }
            Family::Pair | Family::Document => {
                let expired = replies.next().and_then(reply::array).unwrap_or_default();
                let expired = expired.into_iter().filter_map(reply::text).collect();
                Self { expired, has_expiring: true, ..Self::default() }
            }
            _ => Self::default(),
        }
    }

    /// Whether the janitor is about to change it.
    fn is_open(&self, family: Family, name: &str) -> bool {
        let is_of = |member: &String| {
            let mut parts_of = member.splitn(3, '|');
            let (doc, user) = (parts_of.next().unwrap_or(""), parts_of.next().unwrap_or(""));
            match family {
                Family::Document => crate::key::unescape(doc) == name,
                _ => name.split_once('|') == Some((doc, user)),
            }
        };
        self.expired.iter().any(is_of)
    }
}
