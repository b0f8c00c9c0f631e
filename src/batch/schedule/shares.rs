//! Whose turn it is: time on the executors shared among tenants, and among the priorities of each tenant, by weight.
//!
//! # Design
//! Weighted deficit round robin (Shreedhar and Varghese, "Efficient Fair Queueing Using Deficit Round-Robin", SIGCOMM 1995) with
//! three changes. Its packets have lengths, our jobs have predicted run times, corrected when the run has ended. A batch is paid for after it was chosen,
//! so a deficit may become a debt, which is paid in later rounds. And in a round the order is free: everybody who has credit may run,
//! and the earliest deadline decides who does, so that shares bind only where there is too little for all.
//!
//! Rounds are kept as virtual time, which makes a round cost nothing: `served` is the time that a tenant had, divided by its weight; its
//! credit is what it lags behind the least served tenant that has work waiting, plus a quantum. Idle time is not saved up, but for a short
//! burst that a tenant which comes back may run before the others go on; debts are not forgotten.
//!
//! Rejected: strict priorities, as in Triton, which starve; one more horizon for each priority, which orders but gives no share once the
//! queue is older than the horizons; weights that multiply over tenants and priorities, by which a tenant would get more of others'
//! time by calling its work urgent.

use std::collections::{BTreeMap, HashMap};

use super::super::caller::{Caller, Priority, Tenant};

/// Where the work of a tenant and priority is accounted for. Stays valid while work of it is inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) tenant_idx: usize,
    pub(super) priority: Priority,
}

/// The accounts.
#[derive(Debug)]
pub(super) struct Shares {
    /// Credit of a round, in seconds of weight 1.
    quantum: f64,
    /// Credit of a tenant that comes back from idleness.
    burst: f64,
    weights: BTreeMap<Tenant, u32>,
    max_tenants: usize,
    /// The first is for everybody who has no account.
    tenants: Vec<Account>,
    index: HashMap<Tenant, usize>,
    /// `served` of who was least served among those that waited; never falls, or every newcomer would be given more than the one before.
    floor: f64,
    n_entered: u64,
}

/// Time that a tenant had.
#[derive(Clone, Debug)]
struct Account {
    name: Tenant,
    weight: f64,
    share: Share,
    priorities: [Share; Priority::ALL.len()],
    /// As that of the tenants, among the priorities.
    floor: f64,
    /// Jobs waiting or running.
    n_inside: usize,
    last_entry: u64,
}

/// One of those who share.
#[derive(Clone, Copy, Debug)]
struct Share {
    /// Seconds over weight.
    served: f64,
    n_waiting: usize,
}

impl Share {
    /// Nobody, yet.
    const NEW: Self = Self { served: f64::NEG_INFINITY, n_waiting: 0 };

    fn is_waiting(&self) -> bool {
        self.n_waiting > 0
    }

    /// One more waits; who was idle has this credit at most.
    fn enter(&mut self, floor: f64, credit: f64) {
        if self.n_waiting == 0 {
            self.served = self.served.max(floor - credit);
        }
        self.n_waiting += 1;
    }
}

impl Shares {
    /// Tenants in `weights` have accounts for ever; others, of weight 1, as long as there are at most `max_tenants`.
    pub(super) fn new(weights: BTreeMap<Tenant, u32>, max_tenants: usize, (quantum, burst): (f64, f64)) -> Self {
        let mut shares =
            Self { quantum, burst, weights, max_tenants, tenants: Vec::new(), index: HashMap::new(), floor: 0.0, n_entered: 0 };
        shares.open(Tenant::default());
        shares
    }

    /// The flow of a caller, one of whose jobs waits from now on.
    pub(super) fn enter(&mut self, caller: Caller) -> Flow {
        let flow = self.flow(caller);
        self.floor = self.least_served().map_or(self.floor, |least| least.max(self.floor));
        self.n_entered += 1;
        let (floor, burst, quantum, n_entered) = (self.floor, self.burst, self.quantum, self.n_entered);
        if let Some(account) = self.tenants.get_mut(flow.tenant_idx) {
            account.last_entry = n_entered;
            account.n_inside += 1;
            account.share.enter(floor, burst);
            account.floor = account.least_served().map_or(account.floor, |least| least.max(account.floor));
            let floor = account.floor;
            account.priority_mut(flow.priority).enter(floor, quantum);
        }
        flow
    }

    /// One job of the flow waits no longer.
    pub(super) fn stop_waiting(&mut self, flow: Flow) {
        self.floor = self.least_served().map_or(self.floor, |least| least.max(self.floor));
        if let Some(account) = self.tenants.get_mut(flow.tenant_idx) {
            account.floor = account.least_served().map_or(account.floor, |least| least.max(account.floor));
            account.share.n_waiting = account.share.n_waiting.saturating_sub(1);
            let share = account.priority_mut(flow.priority);
            share.n_waiting = share.n_waiting.saturating_sub(1);
        }
    }

    /// One job of the flow is inside no longer.
    pub(super) fn exit(&mut self, flow: Flow) {
        if let Some(account) = self.tenants.get_mut(flow.tenant_idx) {
            account.n_inside = account.n_inside.saturating_sub(1);
        }
    }

    /// The flow had `seconds` on an executor; less than zero to correct what was charged before.
    pub(super) fn charge(&mut self, flow: Flow, seconds: f64) {
        if let Some(account) = self.tenants.get_mut(flow.tenant_idx) {
            account.share.served += seconds / account.weight;
            account.priority_mut(flow.priority).served += seconds / f64::from(flow.priority.weight());
        }
    }

    /// Whose turn it is: flows that have credit among those that wait now, as their tenants have.
    pub(super) fn turn(&self) -> Turn {
        let floor = self.least_served().unwrap_or(self.floor);
        let has_credit = |share: Share, floor: f64| share.served <= floor || share.served < floor + self.quantum;
        let of_account = |account: &Account| {
            if !(account.share.is_waiting() && has_credit(account.share, floor)) {
                return Default::default();
            }
            let floor = account.least_served().unwrap_or(account.floor);
            account.priorities.map(|share| has_credit(share, floor))
        };
        Turn(self.tenants.iter().map(of_account).collect())
    }

    /// Seconds on the executors that others, who have `waiting` seconds of work, get before a flow had `own` seconds more. `waiting`
    /// tells the work of a tenant, and of a priority of this one.
    pub(super) fn before(&self, flow: Flow, own: f64, waiting: &Waiting) -> f64 {
        let Some(account) = self.tenants.get(flow.tenant_idx) else { return 0.0 };
        let mine = account.priority(flow.priority);
        let mut within = own;
        for other in Priority::ALL.into_iter().filter(|other| *other != flow.priority) {
            let lead = (mine.served - account.priority(other).served).max(0.0);
            let share = f64::from(other.weight()) * (own / f64::from(flow.priority.weight()) + lead);
            within += waiting.of_priority(other).min(share);
        }
        let mut total = within - own;
        for (tenant_idx, other) in self.tenants.iter().enumerate().filter(|(idx, _)| *idx != flow.tenant_idx) {
            let lead = (account.share.served - other.share.served).max(0.0);
            total += waiting.of_tenant(tenant_idx).min(other.weight * (within / account.weight + lead));
        }
        total
    }

    /// Accounts, the common one among them.
    pub(super) fn n_tenants(&self) -> usize {
        self.tenants.len()
    }

    fn flow(&mut self, Caller { tenant, priority }: Caller) -> Flow {
        let tenant_idx = self.index.get(&tenant).copied().or_else(|| self.place(tenant)).unwrap_or_default();
        Flow { tenant_idx, priority }
    }

    /// An account for a new tenant, if need be that of an idle one; those with a debt keep theirs as long as possible.
    fn place(&mut self, tenant: Tenant) -> Option<usize> {
        if self.weights.contains_key(&tenant) || self.tenants.len() <= self.max_tenants {
            return Some(self.open(tenant));
        }
        let is_idle = |account: &Account| account.n_inside == 0 && !self.weights.contains_key(&account.name);
        let idle = self.tenants.iter().enumerate().skip(1).filter(|(_, account)| is_idle(account));
        let (tenant_idx, _) = idle.min_by_key(|(_, account)| (account.share.served > self.floor, account.last_entry))?;
        let account = Account::new(tenant, 1);
        let old = std::mem::replace(self.tenants.get_mut(tenant_idx)?, account);
        self.index.remove(&old.name);
        self.index.insert(tenant, tenant_idx);
        Some(tenant_idx)
    }

    fn open(&mut self, tenant: Tenant) -> usize {
        let weight = self.weights.get(&tenant).copied().unwrap_or(1);
        self.tenants.push(Account::new(tenant, weight));
        self.index.insert(tenant, self.tenants.len() - 1);
        self.tenants.len() - 1
    }

    fn least_served(&self) -> Option<f64> {
        least(self.tenants.iter().map(|account| &account.share))
    }
}

impl Account {
    fn new(name: Tenant, weight: u32) -> Self {
        let (share, priorities) = (Share::NEW, [Share::NEW; Priority::ALL.len()]);
        Self { name, weight: f64::from(weight.max(1)), share, priorities, floor: 0.0, n_inside: 0, last_entry: 0 }
    }

    fn priority(&self, priority: Priority) -> Share {
        self.priorities.get(priority.idx()).copied().unwrap_or(Share::NEW)
    }

    fn priority_mut(&mut self, priority: Priority) -> &mut Share {
        let [interactive, normal, bulk] = &mut self.priorities;
        match priority {
            Priority::Interactive => interactive,
            Priority::Normal => normal,
            Priority::Bulk => bulk,
        }
    }

    fn least_served(&self) -> Option<f64> {
        least(self.priorities.iter())
    }
}

fn least<'a>(shares: impl Iterator<Item = &'a Share>) -> Option<f64> {
    shares.filter(|share| share.is_waiting()).map(|share| share.served).min_by(f64::total_cmp)
}

/// Whose turn it is, by tenant and priority; of those that have work waiting.
#[derive(Clone, Debug)]
pub(super) struct Turn(Vec<[bool; Priority::ALL.len()]>);

impl Turn {
    /// Whether it is the turn of a flow.
    pub(super) fn is_of(&self, flow: Flow) -> bool {
        self.0.get(flow.tenant_idx).and_then(|account| account.get(flow.priority.idx())).is_some_and(|is_in_turn| *is_in_turn)
    }
}

/// Seconds of work that wait, by tenant, and by priority of one tenant.
#[derive(Debug)]
pub(super) struct Waiting {
    tenants: Vec<f64>,
    priorities: [f64; Priority::ALL.len()],
    tenant_idx: usize,
}

impl Waiting {
    /// Nothing yet; priorities are told apart for the tenant of `flow`.
    pub(super) fn new(n_tenants: usize, flow: Flow) -> Self {
        Self { tenants: vec![0.0; n_tenants], priorities: Default::default(), tenant_idx: flow.tenant_idx }
    }

    /// Adds work.
    pub(super) fn add(&mut self, flow: Flow, seconds: f64) {
        if let Some(sum) = self.tenants.get_mut(flow.tenant_idx) {
            *sum += seconds;
        }
        if flow.tenant_idx == self.tenant_idx
            && let Some(sum) = self.priorities.get_mut(flow.priority.idx())
        {
            *sum += seconds;
        }
    }

    /// Work of one priority of the tenant.
    pub(super) fn of_priority(&self, priority: Priority) -> f64 {
        self.priorities.get(priority.idx()).copied().unwrap_or_default()
    }

    fn of_tenant(&self, tenant_idx: usize) -> f64 {
        self.tenants.get(tenant_idx).copied().unwrap_or_default()
    }
}
