//! Unlinking: the removal of what we linked and the row no longer asks for.
//!
//! Every removal is committed to our memory before it is asked who else needs the pair, so that of two rows that let
//! go of one pair at a time at least one sees the other going. HubSpot confirms no removal, so the pairs are read
//! back: what is still there is asked for again.

use super::link::{Job, Said, links, verdicts};
use super::send::{Sending, denial};
use crate::hubspot::{AssociationType, Failed};
use crate::sync::answer::Denial;
use crate::sync::change::Key;
use crate::sync::linking::{Pair, Removal};
use std::ops::Range;

/// The most pairs a request carries.
const PAIRS_MAX: usize = 100;

/// A link to be removed.
struct Going {
    job: usize,
    pair: Pair,
}

impl Sending<'_> {
    /// Removes what was linked before, where the target's link stands.
    pub(super) async fn remove(&mut self, jobs: &mut [Job]) {
        let mut going: Vec<Going> = Vec::new();
        for (at, job) in jobs.iter_mut().enumerate().filter(|(_, job)| job.goes_on()) {
            let kind = &self.door.objects[self.object].links[job.link];
            let held = job.all_seen(kind);
            for to in job.linking.removals(|to| held.get(to).copied()) {
                let pair = job.pair(&to).1;
                going.push(Going { job: at, pair });
            }
        }
        if going.is_empty() {
            return;
        }
        self.note(jobs).await;
        for link in links(jobs) {
            let (of_link, others) = going.into_iter().partition(|going| jobs[going.job].link == link);
            going = others;
            self.remove_some(jobs, link, of_link).await;
        }
    }

    /// Removes links of one kind.
    async fn remove_some(&mut self, jobs: &mut [Job], link: usize, going: Vec<Going>) {
        let mut pairs = Vec::new();
        let mut labels = Vec::new();
        let asked: Vec<(usize, (Key, Pair))> = going
            .iter()
            .map(|going| (going.job, jobs[going.job].pair(&going.pair.to)))
            .collect();
        let beside = self.beside(jobs, link, &asked).await;
        let kind = self.kind(link).clone();
        for (going, beside) in going.into_iter().zip(beside) {
            let job = &mut jobs[going.job];
            let Some(seen) = job.seen(&kind, &going.pair.to) else {
                continue;
            };
            match job.linking.removal(&going.pair.to, seen, &beside) {
                Removal::Forget => {}
                Removal::Pair => pairs.push(going),
                Removal::Label => labels.push(going),
            }
        }
        let label = kind.label;
        for (mut going, label) in [(pairs, None), (labels, label)] {
            while !going.is_empty() {
                let rest = going.split_off(going.len().min(PAIRS_MAX));
                self.dissociate_all(jobs, link, label.as_ref(), going).await;
                going = rest;
            }
        }
    }

    async fn dissociate_all(
        &mut self,
        jobs: &mut [Job],
        link: usize,
        label: Option<&AssociationType>,
        going: Vec<Going>,
    ) {
        let pairs: Vec<Pair> = going.iter().map(|going| going.pair.clone()).collect();
        let mut said = vec![Said::Nothing; pairs.len()];
        let mut parts: Vec<Range<usize>> = std::iter::once(0..pairs.len()).collect();
        while let Some(part) = parts.pop() {
            let asked = self.dissociate(link, label, &pairs[part.clone()]).await;
            self.take_in(&mut said, &mut parts, part, &pairs, asked);
        }
        for (going, said) in going.into_iter().zip(said) {
            let job = &mut jobs[going.job];
            self.doubt_link(job, &said);
            let answer = job.answered(said);
            job.linking.removed(&going.pair.to, answer);
        }
    }

    /// One request, and one that reads what came of it.
    async fn dissociate(
        &mut self,
        link: usize,
        label: Option<&AssociationType>,
        pairs: &[Pair],
    ) -> Result<Vec<Said>, Failed> {
        let ends: Vec<(&str, &str)> = pairs.iter().map(|pair| (&*pair.from, &*pair.to)).collect();
        let to_type = self.kind(link).to_type.clone();
        let slot = self.slot(pairs.len()).await?;
        self.begin(&mut [], &[]);
        let client = &self.door.client;
        let reply = client
            .dissociate(slot, self.object_type(), &to_type, label, &ends)
            .await?;
        let correlation_id = reply.correlation_id.as_deref();
        let errors: Vec<Denial> = reply
            .errors
            .iter()
            .map(|error| denial(error, correlation_id))
            .collect();
        let asked: Vec<&Pair> = pairs.iter().collect();
        let is_label = label.is_some();
        let held = self.held(link, &asked, |seen| !is_label || seen.ours).await?;
        Ok(verdicts(pairs, &errors, |pair| !held.contains(pair)))
    }
}
