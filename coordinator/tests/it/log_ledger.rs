//! The log's writer, step by step, where the simulation would need luck: what it asks of a member
//! that lags, is refused or has another log.

use std::collections::BTreeSet;
use std::time::Duration;

use basalt_coordinator::catalog::ledger::{Answer, Ask, AskFor, Ledger, Opening, Step, Timing};
use basalt_coordinator::catalog::members::LogSet;
use basalt_coordinator::catalog::record::Mark;
use basalt_coordinator::catalog::{Change, Command, NewCluster, State};
use basalt_storage::command_log::copy::Promise;
use basalt_storage::command_log::{Chain, Position, Verdict};
use basalt_storage::ids::{CoordinatorId, LogEpoch, LogWriter, TxnId, WorkerId};

const NOW: Duration = Duration::ZERO;

/// A log of a coordinator and one worker, whose last four records are not known to be durable.
struct Case {
    worker: WorkerId,
    ledger: Ledger<()>,
}

fn case() -> Case {
    let (own, worker) = (CoordinatorId::generate(), WorkerId::generate());
    let (mut state, mut chain) = (State::new(), Chain::start());
    let set = LogSet {
        log_epoch: LogEpoch(1),
        coordinator: own,
        workers: BTreeSet::from([worker]),
        copies: 2,
    };
    let mut commands = vec![
        vec![Change::CreateCluster(NewCluster::generate())],
        vec![Change::RegisterWorker { worker }],
        vec![Change::SetLogMembers { set, forced: false }],
    ];
    commands.resize(7, Vec::new());
    let mut committed = Mark::at(chain);
    for changes in commands {
        let command = Command::new(TxnId::generate(), 0, changes);
        let payload = serde_json::to_vec(&command).unwrap();
        state.apply(command).unwrap();
        chain.append(state.epoch(), state.log_epoch(), &payload).unwrap();
        if chain.seq == 3 {
            committed = Mark::at(chain);
        }
    }
    let writer = LogWriter::generate();
    let opening = Opening { own, writer, state, chain, committed: Some(committed) };
    let mut ledger = Ledger::new(opening, Timing::default(), NOW);
    ledger.set_reachable(BTreeSet::from([worker]), NOW);
    ledger.poll(NOW);
    Case { worker, ledger }
}

impl Case {
    /// The next question; writes of the own copy are done at once.
    fn ask(&mut self) -> AskFor {
        loop {
            match self.ledger.next_step().expect("a question") {
                Step::Ask(ask) => return ask,
                Step::Write { .. } => self.ledger.written(NOW),
                Step::Publish | Step::Reply(..) => {}
            }
        }
    }

    fn answer(&mut self, ask: &AskFor, verdict: Verdict, tail: Chain, upto: u64, at: Duration) {
        let promised = Some(Promise { epoch: LogEpoch(2), writer: LogWriter::generate() });
        let position = Position { promised, tail, complete: true };
        let answer = Answer::Position { verdict, position, upto };
        self.ledger.answered(self.worker, ask.id, answer, at);
    }
}

#[test]
fn a_newer_log_that_ends_before_ours_has_taken_over() {
    for seq in [2, 6, 7] {
        let mut case = case();
        let ask = case.ask();
        assert!(matches!(ask.ask, Ask::Promise));
        let tail = Chain { seq, log_epoch: LogEpoch(9), ..Chain::start() };
        case.answer(&ask, Verdict::Done, tail, 0, NOW);
        assert!(case.ledger.superseded().is_some(), "{seq}");
        assert!(case.ledger.next_step().is_none(), "{seq}: nothing is asked any more");
    }
}

#[test]
fn until_it_leads_a_copy_is_complete_only_with_everything_that_was_taken_over() {
    let mut case = case();
    let ask = case.ask();
    let tail = Chain { seq: 2, ..Chain::start() };
    case.answer(&ask, Verdict::Done, tail, 0, NOW);
    let ask = case.ask();
    let Ask::Append { after: 2, committed, .. } = ask.ask else { panic!("{ask:?}") };
    assert_eq!(committed, case.ledger.chain().seq, "not 3, which was durable before the crash");
}

#[test]
fn a_member_that_refuses_is_probed_without_records() {
    let mut case = case();
    let ask = case.ask();
    case.answer(&ask, Verdict::Done, Chain { seq: 2, ..Chain::start() }, 0, NOW);
    let ask = case.ask();
    case.answer(&ask, Verdict::Refused, Chain::start(), 0, NOW);
    let later = Duration::from_millis(150);
    case.ledger.poll(later);
    let probe = case.ask();
    let Ask::Append { after, run: Some(run), .. } = &probe.ask else { panic!("{probe:?}") };
    assert_eq!((*after, run.records.len()), (case.ledger.chain().seq, 0), "nothing off the disk");
    // It is ours again: it is asked where it is, and filled from there.
    case.answer(&probe, Verdict::Mismatch, Chain { seq: 2, ..Chain::start() }, 0, later);
    let fill = case.ask().ask;
    assert!(matches!(fill, Ask::Append { after: 2, .. }), "{fill:?}");
}
