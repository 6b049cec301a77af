//! What happens when: a function of a seed.

/// Numbers by chance, the same ones for a seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    /// All of a list, in an order by chance.
    pub fn shuffled<T: Clone>(&mut self, all: &[T]) -> Vec<T> {
        let mut all = all.to_vec();
        for place in (1..all.len()).rev() {
            all.swap(place, self.below(place + 1));
        }
        all
    }
}

/// What happens to the node, the daemon or its cluster.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Trouble {
    ApiForbids,
    ApiRestarts,
    ApiSlow,
    BadReload,
    DiskFull,
    Flood,
    GoodReload,
    InterfaceDown,
    Killed,
    LeaseTaken,
    NoNames,
    Stopped,
    Tenants,
}

impl Trouble {
    pub const ALL: [Self; 13] = [
        Self::ApiForbids,
        Self::ApiRestarts,
        Self::ApiSlow,
        Self::BadReload,
        Self::DiskFull,
        Self::Flood,
        Self::GoodReload,
        Self::InterfaceDown,
        Self::Killed,
        Self::LeaseTaken,
        Self::NoNames,
        Self::Stopped,
        Self::Tenants,
    ];

    /// Every server is unreachable, so the faults of single ones don't show.
    pub fn is_everywhere(self) -> bool {
        matches!(self, Self::InterfaceDown | Self::NoNames)
    }
}

/// What one round does: a trouble, and a fault of some of the registries, by their numbers.
#[derive(Clone, Debug)]
pub struct Round {
    pub trouble: Trouble,
    pub faults: Vec<Option<usize>>,
}

/// Rounds without an end. Each trouble comes once before one comes twice, and so does each fault.
pub struct Plan {
    dice: Dice,
    troubles: Vec<Trouble>,
    faults: Vec<usize>,
    /// How many faults there are; and after which a registry rests for some rounds.
    all: Vec<usize>,
    rests: Vec<usize>,
}

impl Plan {
    /// `rests[fault]`: rounds for which a registry has no other fault afterwards.
    pub fn new(seed: u64, registries: usize, rests: &[usize]) -> Self {
        Self {
            dice: Dice::new(seed),
            troubles: Vec::new(),
            faults: Vec::new(),
            all: rests.to_vec(),
            rests: vec![0; registries],
        }
    }

    pub fn round(&mut self) -> Round {
        if self.troubles.is_empty() {
            self.troubles = self.dice.shuffled(&Trouble::ALL);
        }
        let trouble = self.troubles.pop().unwrap();
        let mut faults = vec![None; self.rests.len()];
        for (registry, fault) in faults.iter_mut().enumerate() {
            if self.rests[registry] > 0 {
                self.rests[registry] -= 1;
                continue;
            }
            if trouble.is_everywhere() {
                continue;
            }
            if self.faults.is_empty() {
                let numbers: Vec<usize> = (0..self.all.len()).collect();
                self.faults = self.dice.shuffled(&numbers);
            }
            let next = self.faults.pop().unwrap();
            self.rests[registry] = self.all[next];
            *fault = Some(next);
        }
        Round { trouble, faults }
    }
}
