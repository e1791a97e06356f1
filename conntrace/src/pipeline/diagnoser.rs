//! Diagnosis of attempts: runs the rules, and asks the inspectors what the rules need to know.
//!
//! It never waits. A diagnosis stops at the first answer that is missing, asks for it, and runs the
//! rules anew once it is there. Equal cases are diagnosed once, equal questions asked once.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::HashMap;

use super::{
    diagnosed::{Diagnosed, Diagnosis, DiagnosisId},
    rule_run::RuleRun,
};
use crate::{
    diagnosis::{self, Case, DiagnosisResult, Undiagnosed, question::Question},
    host::{AnswerCache, AttemptRef, BoundedMap, Inspectors, Lookup, RecordedAnswer, Share},
    record::{Attempt, Verdict},
};

/// Remaining validity at which a cached case is diagnosed anew, in nanoseconds: a storm of equal
/// failures then need not wait.
const AHEAD_NS: u64 = 100_000_000;
/// Time for which an answer that is late is still taken, for the cases that follow.
const LATE_MAX: Duration = Duration::from_secs(1);
/// Maximum number of questions whose answers are awaited, late ones included.
const ASKED_MAX: usize = 8192;
/// Maximum number of cached cases; the cache is cleared when full.
const CASES_MAX: usize = 1024;
/// Maximum number of cached cases in a replay. It has them in another order, and must not clear a
/// case that the live run still had.
const REPLAYED_CASES_MAX: usize = 64 * CASES_MAX;

/// Maximum number of attempts of a share in a second whose destination is looked for in connection
/// tracking one by one, because equal ones are translated. Of the others the translation is unknown.
const TRANSLATED_MAX: u32 = 32;
/// Client of attempts whose translation is not looked for.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// Maximum number of shares whose looks are counted; forgotten when full.
const SHARES_MAX: usize = 1024;

/// Finds the cause of an attempt's ending.
pub(super) struct Diagnoser {
    /// Results by case, each valid as long as the answers it is based on.
    cases: BoundedMap<Case, Diagnosed>,
    cache: AnswerCache,
    /// Second, and number of attempts in it that were looked for one by one.
    translated: BoundedMap<Share, (u64, u32)>,
    is_live: bool,
    /// Time limit of a diagnosis.
    timeout: Duration,
    /// True if a recording needs the answers.
    keeps_answers: bool,
    under_way: BTreeMap<DiagnosisId, UnderWay>,
    /// Diagnosis under way of each case.
    by_case: HashMap<Case, DiagnosisId>,
    /// Questions asked, by the number of their answer.
    asked: BTreeMap<u64, Asked>,
    /// Questions up to this number are late: no diagnosis waits for them.
    late: u64,
    /// Number of the last answer that each question waits for.
    by_question: HashMap<Question, u64>,
    results: Vec<(DiagnosisId, Diagnosed)>,
    last: u64,
    /// Answers for the next record of a recording.
    told: Vec<RecordedAnswer>,
}

/// Diagnosis that waits for an answer.
struct UnderWay {
    case: Case,
    about: AttemptRef,
    share: Share,
    /// Time at which it ends with what is known.
    until: Instant,
    /// Time up to which cached answers are too old, `CLOCK_BOOTTIME` nanoseconds.
    ignored_ns: u64,
    answers: Vec<RecordedAnswer>,
}

/// Question that an inspector answers.
struct Asked {
    question: Question,
    about: AttemptRef,
    /// Time at which an inspector may drop it unanswered.
    until: Instant,
    /// Diagnoses that wait for the answer.
    by: Vec<DiagnosisId>,
}

impl Diagnoser {
    /// Creates a diagnoser that ends the diagnosis of an attempt after this time. It keeps the
    /// answers for a recording.
    #[must_use]
    pub(super) fn live(timeout: Duration, keeps_answers: bool) -> Self {
        Self {
            timeout,
            keeps_answers,
            cases: BoundedMap::new(CASES_MAX),
            is_live: true,
            ..Self::of_recording()
        }
    }

    /// Creates a diagnoser that uses only recorded answers (see [`add_answer`](Self::add_answer)).
    #[must_use]
    pub(super) fn of_recording() -> Self {
        Self {
            cases: BoundedMap::new(REPLAYED_CASES_MAX),
            cache: AnswerCache::default(),
            translated: BoundedMap::new(SHARES_MAX),
            is_live: false,
            timeout: Duration::ZERO,
            keeps_answers: false,
            under_way: BTreeMap::new(),
            by_case: HashMap::default(),
            asked: BTreeMap::new(),
            late: 0,
            by_question: HashMap::default(),
            results: Vec::new(),
            last: 0,
            told: Vec::new(),
        }
    }

    /// Adds an answer from a recording, for the next record.
    pub(super) fn add_answer(&mut self, answer: RecordedAnswer) {
        self.cache.put(answer.clone());
        self.told.push(answer);
    }

    /// Forgets the answers for the next record: it needs none.
    pub(super) fn forget_answers(&mut self) {
        self.told.clear();
    }

    /// Forgets cached cases and answers; for a time when they have expired.
    pub(super) fn forget_expired(&mut self) {
        self.cases = BoundedMap::new(CASES_MAX);
        self.cache = AnswerCache::default();
        self.asked.retain(|_, asked| !asked.by.is_empty());
        let asked = &self.asked;
        self.by_question
            .retain(|_, number| asked.contains_key(number));
        self.by_question.shrink_to_fit();
        self.by_case.shrink_to_fit();
    }

    /// Begins to diagnose an attempt, if its line may wait. Without inspectors, what no recording told
    /// is unknown.
    pub(super) fn begin(
        &mut self,
        attempt: &Attempt,
        verdict: &Verdict,
        may_wait: bool,
        now: Instant,
        inspectors: Option<&mut Inspectors>,
    ) -> Diagnosis {
        let told = std::mem::take(&mut self.told);
        if !diagnosis::may_have_cause(attempt, verdict.label) {
            return Diagnosis::Known(Diagnosed::default());
        }
        let mut case = Case::new(attempt, verdict);
        case.client = self.own_client(&case, attempt, &told);
        if told.is_empty()
            && let Some(known) = self.cases.get(&case)
            && let Some(until_ns) = known.until_ns()
            && attempt.at_ns < until_ns
        {
            let known = known.clone();
            let is_old = attempt.at_ns + AHEAD_NS >= until_ns;
            if is_old && inspectors.is_some() && !self.by_case.contains_key(&case) {
                let ignored_ns = known.newest_ns();
                self.start(case, attempt, ignored_ns, (vec![], now), inspectors);
            }
            return Diagnosis::Known(known);
        }
        if !may_wait {
            return Diagnosis::NoRoom;
        }
        if let Some(&id) = self.by_case.get(&case) {
            return Diagnosis::UnderWay(id);
        }
        let id = self.start(case, attempt, 0, (told, now), inspectors);
        match self.results.iter().position(|(of, _)| *of == id) {
            Some(at) => Diagnosis::Known(self.results.swap_remove(at).1),
            None => Diagnosis::UnderWay(id),
        }
    }

    /// Returns the client of an attempt that shares no result with equal ones, since such a one was
    /// translated.
    fn own_client(
        &mut self,
        case: &Case,
        attempt: &Attempt,
        told: &[RecordedAnswer],
    ) -> Option<SocketAddr> {
        if !told.is_empty() {
            // A recording has the question that was asked first in the case's own namespace.
            return told.iter().find_map(|answer| {
                if let Question::Tracked { netns, client, .. } = answer.question
                    && netns == case.netns
                {
                    Some(client)
                } else {
                    None
                }
            })?;
        }
        let known = self.cases.get(case)?;
        if attempt.at_ns >= known.until_ns()? || known.is_of(attempt) {
            return None;
        }
        let second = attempt.at_ns / 1_000_000_000;
        let share = Share::of(attempt);
        let before = self.translated.get(&share).copied().unwrap_or_default();
        let count = if before.0 == second { before.1 } else { 0 };
        // Of those that were looked for a recording has the answers.
        if !self.is_live || count >= TRANSLATED_MAX {
            return Some(NOBODY);
        }
        self.translated.insert(share, (second, count + 1));
        attempt.client().or(Some(NOBODY))
    }

    /// Starts a diagnosis with these answers, and without cached ones from before `ignored_ns`.
    fn start(
        &mut self,
        case: Case,
        attempt: &Attempt,
        ignored_ns: u64,
        (answers, now): (Vec<RecordedAnswer>, Instant),
        inspectors: Option<&mut Inspectors>,
    ) -> DiagnosisId {
        self.last += 1;
        let id = DiagnosisId(self.last);
        self.by_case.insert(case.clone(), id);
        let under_way = UnderWay {
            case,
            about: AttemptRef::of(attempt),
            share: Share::of(attempt),
            until: now + self.timeout,
            ignored_ns,
            answers,
        };
        self.under_way.insert(id, under_way);
        self.advance(id, now, inspectors);
        id
    }

    /// Takes the results of diagnoses that have ended, and ends those that are late.
    pub(super) fn results(
        &mut self,
        now: Instant,
        mut inspectors: Option<&mut Inspectors>,
    ) -> Vec<(DiagnosisId, Diagnosed)> {
        self.drop_late_questions(now, inspectors.as_deref_mut());
        let late = self.under_way.iter().filter(|(_, it)| it.until <= now);
        let late: Vec<_> = late.map(|(id, _)| *id).collect();
        for id in late {
            self.advance(id, now, inspectors.as_deref_mut());
        }
        std::mem::take(&mut self.results)
    }

    /// Lets the diagnoses ask anew that joined another one's question, which nobody may answer any
    /// more.
    fn drop_late_questions(&mut self, now: Instant, mut inspectors: Option<&mut Inspectors>) {
        let mut waiting = Vec::new();
        // They were asked in nearly this order.
        let not_late = self.asked.range_mut(self.late + 1..);
        for (number, asked) in not_late.take_while(|(_, it)| it.until <= now) {
            self.late = *number;
            waiting.append(&mut asked.by);
        }
        while let Some(first) = self.asked.first_entry()
            && first.get().until + LATE_MAX <= now
        {
            let (number, asked) = first.remove_entry();
            self.forget(number, &asked.question);
        }
        for id in waiting {
            self.advance(id, now, inspectors.as_deref_mut());
        }
    }

    fn forget(&mut self, number: u64, question: &Question) {
        if self.by_question.get(question) == Some(&number) {
            self.by_question.remove(question);
        }
    }

    /// Ends all diagnoses with what is known.
    pub(super) fn give_up(&mut self, now: Instant) -> Vec<(DiagnosisId, Diagnosed)> {
        for under_way in self.under_way.values_mut() {
            under_way.until = now;
        }
        self.results(now, None)
    }

    /// Returns the time at which the first diagnosis under way is late; `None` if there is none.
    #[must_use]
    pub(super) fn late_at(&self) -> Option<Instant> {
        // All have the same time limit: the first began first.
        self.under_way.values().next().map(|it| it.until)
    }

    /// Takes the answer to the question with this number, and the time of the look, in nanoseconds of
    /// `CLOCK_BOOTTIME`.
    pub(super) fn answered(
        &mut self,
        number: u64,
        (found, looked_ns): (Lookup, u64),
        now: Instant,
        mut inspectors: Option<&mut Inspectors>,
    ) {
        // A question may be answered twice.
        let Some(asked) = self.asked.remove(&number) else {
            return;
        };
        self.forget(number, &asked.question);
        let answer = RecordedAnswer {
            asked_ns: looked_ns,
            netns_mix: asked.about.netns_mix,
            question: asked.question,
            found,
        };
        self.cache.put(answer.clone());
        for id in asked.by {
            if let Some(under_way) = self.under_way.get_mut(&id) {
                under_way.answers.push(answer.clone());
                self.advance(id, now, inspectors.as_deref_mut());
            }
        }
    }

    /// Runs the rules, and asks for the first answer that is missing. Without the time for it, the
    /// answer is unknown.
    fn advance(&mut self, id: DiagnosisId, now: Instant, mut inspectors: Option<&mut Inspectors>) {
        let Some(mut under_way) = self.under_way.remove(&id) else {
            return;
        };
        loop {
            let mut step = RuleRun {
                about: &under_way.about,
                answers: &mut under_way.answers,
                cache: &self.cache,
                ignored_ns: under_way.ignored_ns,
                until_ns: u64::MAX,
                missing: None,
            };
            let (cause, undiagnosed) = diagnosis::diagnose(&under_way.case, &mut step);
            let translation = diagnosis::translation(&under_way.case, &mut step);
            let until_ns = step.until_ns;
            let Some(question) = step.missing else {
                let translation = translation.ok().flatten();
                let result = DiagnosisResult {
                    cause: cause.map(|cause| Arc::new(cause.into())),
                    undiagnosed,
                    translated_to: translation.map(|it| it.to),
                };
                let of_client = translation.map(|it| it.client);
                return self.end(id, under_way, (result, of_client), until_ns);
            };
            let has_time = now < under_way.until;
            if has_time && self.ask(id, &question, &under_way, now, inspectors.as_deref_mut()) {
                self.under_way.insert(id, under_way);
                return;
            }
            under_way.answers.push(RecordedAnswer {
                asked_ns: under_way.about.at_ns,
                netns_mix: under_way.about.netns_mix,
                question,
                found: Lookup::Unknown(Undiagnosed::NoTime),
            });
        }
    }

    fn end(
        &mut self,
        id: DiagnosisId,
        under_way: UnderWay,
        (result, of_client): (DiagnosisResult, Option<SocketAddr>),
        until_ns: u64,
    ) {
        self.by_case.remove(&under_way.case);
        let diagnosed = Diagnosed::new(
            id,
            result,
            of_client,
            (under_way.answers, until_ns),
            self.keeps_answers,
            self.cases.get(&under_way.case),
        );
        // One that was made ahead of time replaces no better one.
        let is_ahead = under_way.ignored_ns > 0;
        let is_single = under_way.case.client.is_some_and(|client| client != NOBODY);
        if is_single {
            // No other attempt has this case.
        } else if !is_ahead || diagnosed.result.undiagnosed != Some(Undiagnosed::NoTime) {
            self.cases.insert(under_way.case, diagnosed.clone());
        }
        self.results.push((id, diagnosed));
    }

    /// Asks a question, or joins a diagnosis that has asked it. Returns false if nobody can answer.
    fn ask(
        &mut self,
        id: DiagnosisId,
        question: &Question,
        under_way: &UnderWay,
        now: Instant,
        inspectors: Option<&mut Inspectors>,
    ) -> bool {
        let UnderWay {
            about,
            share,
            until,
            ..
        } = *under_way;
        let equal = self.by_question.get(question);
        if let Some(asked) = equal.and_then(|number| self.asked.get_mut(number))
            && now < asked.until
            && AnswerCache::serves(question, &asked.about, &about)
        {
            asked.by.push(id);
            return true;
        }
        let number = inspectors.and_then(|them| them.ask(question.clone(), about, share, until));
        let Some(number) = number else {
            return false;
        };
        if self.asked.len() >= ASKED_MAX
            && let Some((first, asked)) = self.asked.pop_first()
        {
            self.forget(first, &asked.question);
        }
        self.by_question.insert(question.clone(), number);
        let asked = Asked {
            question: question.clone(),
            about,
            until,
            by: vec![id],
        };
        self.asked.insert(number, asked);
        true
    }
}
