//! Repeats: an attempt that was told already is counted, not told again.
//!
//! Decided before anything dear is read: the key is a hash of the call, the executable, the strings that were passed and what
//! they are relative to. The first attempt goes out in full, and only when it is in the ring is there a slot that counts its
//! repeats: what was never told is never folded away. Where all slots of a key have counts that user space has not taken yet,
//! attempts go out one by one.
//!
//! `docs/decisions/0009-folding-repeats.md`; the table and the hash are described in [`detector_common::fold`].

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{bindings::BPF_F_MMAPABLE, helpers::generated::bpf_jiffies64, macros::map, maps::Array};
use detector_common::{
    fold::{FIXED_WORDS, HASHED_WORDS, SETS, Secret, Set, Slot, State, TEXT_MAX, WAYS},
    operation::Operation,
    record::{Base, FoldRecord, NOT_FOLDED, PATH_MAX, Section},
    syscalls::{Call, Form, NONE},
};

use crate::{atomic::Claim, budget, capture::call, memory, ring, scratch::Scratch};

#[map]
static FOLD: Array<Set> = Array::with_max_entries(SETS as u32, BPF_F_MMAPABLE);

/// Set by user space before the programs are loaded; frozen then.
#[unsafe(no_mangle)]
static FOLD_SECRET: Secret = Secret::UNSET;

/// How often adding to a count is tried again when others do so at the same time.
const TRIES: u32 = 8;

/// Counts a refused write whose strings and bases are in the scratch; whether a record of it has to be made.
#[inline(always)]
pub fn admit(scratch: &mut Scratch, call: &Call) -> bool {
    let cgroup = scratch.record.header.cgroup_id;
    let operation = operation(call, call::argument(scratch, call.flags));
    scratch.record.call.fold = FoldRecord::NONE;
    // What is not known may be another thing each time: a path that could not be read, or a file that is opened by its handle.
    let record = &scratch.record.call;
    let is_known = record.lengths[Section::Path as usize] != 0 || record.base != Base::None as u8;
    let can_fold = record.unreadable == 0 && record.extra_unreadable == 0 && is_known;
    if can_fold && scratch.is_new == 0 {
        hash(scratch, call, operation);
        if is_repeat(scratch.key, cgroup, operation) {
            return false;
        }
    }
    let row = budget::row_of(cgroup);
    scratch.cgroup_row = row;
    budget::count_denied(row, operation);
    if !budget::admits_write(row, scratch.record.header.time_ns) {
        budget::count_cut(row, operation);
        return false;
    }
    if can_fold {
        claim_in(&FOLD, scratch);
    }
    true
}

/// Sends the record of a refused write that was admitted; from then on its repeats are counted.
#[inline(always)]
pub fn send(scratch: &mut Scratch, call: &Call) {
    let sent = ring::send_write(scratch);
    if !sent {
        budget::count_untold(scratch.cgroup_row, operation(call, call::argument(scratch, call.flags)));
    }
    conclude_in(&FOLD, scratch, sent);
}

/// The operation of a call with these flags, as user space calls it: an unlinkat may remove a folder.
#[inline(always)]
pub fn operation(call: &Call, flags: u64) -> u8 {
    const AT_REMOVEDIR: u64 = 0x200;
    let removes_folder = call.operation == Operation::Unlink as u8 && flags & AT_REMOVEDIR != 0;
    if removes_folder { Operation::Rmdir as u8 } else { call.operation }
}

#[inline(always)]
fn hash(scratch: &mut Scratch, call: &Call, operation: u8) {
    let record = &scratch.record.call;
    let flags = if call.form == Form::OpenHow as u8 { record.extra[0] } else { call::argument(scratch, call.flags) };
    let asked = u64::from(operation)
        | u64::from(record.abi) << 8
        | u64::from(record.syscall) << 16
        | (flags & 0xffff_ffff) << 32;
    // Nobody can choose these, so a plain hash does.
    let bases = u64::from(record.base) | u64::from(record.base2) << 8 | record.extra[2] << 16;
    let mut chosen_by_kernel = mix(mix(bases, scratch.bases[0][0]), scratch.bases[0][1]);
    if call.path2 != NONE {
        chosen_by_kernel = mix(mix(chosen_by_kernel, scratch.bases[1][0]), scratch.bases[1][1]);
    }
    let [dentry, inode, generation] = scratch.actor.executed.identity;
    chosen_by_kernel = mix(mix(mix(chosen_by_kernel, dentry), inode), generation);
    let length = |section: Section| u64::from(record.lengths[section as usize]);
    let lengths = length(Section::Path)
        | length(Section::Path2) << 16
        | length(Section::Source) << 32
        | length(Section::Data) << 48;
    let mut lanes = [0; 2];
    for (index, word) in [asked, chosen_by_kernel, lengths].into_iter().enumerate() {
        add(&mut lanes, index, word);
    }
    scratch.key = lanes;
    hash_text(scratch);
}

/// Mixes a word into a hash that nobody attacks.
#[inline(always)]
pub fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}

/// Adds the strings to the key.
///
/// A global function (kernel 5.12): the verifier goes through its loop once, not once for each way to it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn hash_text(scratch: *mut Scratch) -> u32 {
    // SAFETY: null, or a live scratch of the caller's; the verifier knows its size from the type.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    let used = scratch.used as usize;
    if used > TEXT_MAX {
        return 0;
    }
    // The rest of the last word; what comes after the strings is not there yet.
    for byte in 0..8 {
        scratch.payload[used + byte] = 0;
    }
    let words = used.div_ceil(8);
    let mut lanes = scratch.key;
    let mut index = 0;
    while index < TEXT_MAX / 8 && index < words {
        let text = (&raw const scratch.payload).cast::<u64>();
        // SAFETY: within the payload, which stands at a multiple of 8 (see `scratch`).
        let word = unsafe { read_volatile(text.add(index)) };
        add(&mut lanes, index + FIXED_WORDS, word);
        index += 1;
    }
    scratch.key = lanes;
    0
}

/// Adds a word to one lane.
#[inline(always)]
pub fn add_to_lane(lane: &mut u64, index: usize, word: u64) {
    let numbers = &raw const FOLD_SECRET.0[index];
    // SAFETY: of a live static; volatile, because user space writes it before the load of the programs.
    let [a, b] = unsafe { [read_volatile(&raw const (*numbers)[0]), read_volatile(&raw const (*numbers)[1])] };
    *lane = lane.wrapping_add(product(word, a, b));
}

/// Adds a word to both lanes.
#[inline(always)]
fn add(lanes: &mut [u64; 2], index: usize, word: u64) {
    let numbers = &raw const FOLD_SECRET.0[index];
    // SAFETY: of a live static; volatile, because user space writes it before the load of the programs.
    let [a, b, c, d] = unsafe { read_volatile(numbers) };
    lanes[0] = lanes[0].wrapping_add(product(word, a, b));
    lanes[1] = lanes[1].wrapping_add(product(word, c, d));
}

/// What a word adds to a lane: see [`Secret`].
#[inline(always)]
fn product(word: u64, a: u64, b: u64) -> u64 {
    word.wrapping_add(a).wrapping_mul((word >> 32).wrapping_add(b))
}

/// The factor of the secret for the byte at `position` of a path.
#[inline(always)]
pub fn factor(position: usize) -> u64 {
    const _: () = assert!(PATH_MAX.is_power_of_two() && PATH_MAX <= HASHED_WORDS * 4);
    let position = position & (PATH_MAX - 1);
    // SAFETY: of a live static; volatile, because user space writes it before the load of the programs.
    unsafe { read_volatile(&raw const FOLD_SECRET.0[position / 4][position % 4]) }
}

/// The kernel's ticks since boot (kernel 5.6): one load, where a clock takes forty times as long.
#[inline(always)]
fn ticks() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_jiffies64() }
}

/// Which set a key belongs to: by both words, for one may be of the path alone, and what several programs and calls do with the
/// same path would have a single set.
#[inline(always)]
fn set_of(key: [u64; 2]) -> u32 {
    // Where it is a sum of products with small factors (see `quick`), a flag of the call changes the upper half only.
    let of_second = key[1] >> 20 ^ key[1] >> 40;
    (key[0] >> 32).wrapping_add(of_second) as u32 & (SETS as u32 - 1)
}

#[inline(always)]
fn state(slot: *mut Slot) -> &'static Claim {
    // SAFETY: a live, aligned map value, which both sides change by exchanging it.
    unsafe { Claim::at(&raw mut (*slot).state) }
}

/// Counts the attempt, if it is one that was told.
#[inline(always)]
pub fn is_repeat(key: [u64; 2], cgroup: u64, operation: u8) -> bool {
    let counted = count_in(&FOLD, key, cgroup);
    if let Some((_, row)) = counted {
        budget::count_denied(row, operation);
    }
    counted.is_some()
}

/// A slot that counts the repeats of an attempt.
#[derive(Clone, Copy)]
pub struct Place {
    /// Its number.
    pub slot: u64,
    /// What its state is, without the count, as long as it is that attempt's.
    pub state: u64,
}

/// Counts an open that is refused, if it is one that was told; where it was counted.
#[inline(always)]
pub fn repeated_open(key: [u64; 2], cgroup: u64) -> Option<Place> {
    let (place, row) = count_in(&FOLD, key, cgroup)?;
    budget::count_denied_open(row);
    Some(place)
}

/// The same, where its slot is known, if that still is its; whether it was counted.
#[inline(always)]
pub fn repeated_open_at(Place { slot, state: kept }: Place) -> bool {
    let Some(set) = FOLD.get_ptr_mut((slot / WAYS as u64) as u32) else { return false };
    // SAFETY: a live map value.
    let slot = unsafe { (&raw mut (*set).0).cast::<Slot>().add(slot as usize & (WAYS - 1)) };
    let before = State(state(slot).get());
    if before.without_count() != kept {
        return false;
    }
    // SAFETY: as above; volatile, because others may be about to write it. Should one have done so since, the exchange fails.
    let row = unsafe { read_volatile(&raw const (*slot).row) } as u32;
    let is_counted = count(slot, before);
    if is_counted {
        budget::count_denied_open(row);
    }
    is_counted
}

/// Counts what has this key, if a slot of `table` does; which, and the row of its cgroup.
#[inline(always)]
pub fn count_in(table: &'static Array<Set>, key: [u64; 2], cgroup: u64) -> Option<(Place, u32)> {
    let number = set_of(key);
    let set = table.get_ptr_mut(number)?;
    let mut way = 0;
    while way < WAYS {
        // SAFETY: a live map value.
        let slot = unsafe { &raw mut (*set).0[way] };
        let before = State(state(slot).get());
        // SAFETY: as above; volatile, because others may be about to write them. Should one have done so since `before`, the
        // exchange fails.
        let same = unsafe {
            read_volatile(&raw const (*slot).key[0]) == key[0]
                && read_volatile(&raw const (*slot).key[1]) == key[1]
                && read_volatile(&raw const (*slot).cgroup_id) == cgroup
        };
        if same && before.is_live() {
            // SAFETY: as above.
            let row = unsafe { read_volatile(&raw const (*slot).row) } as u32;
            let place = Place { slot: u64::from(number) * WAYS as u64 + way as u64, state: before.without_count() };
            return count(slot, before).then_some((place, row));
        }
        way += 1;
    }
    None
}

/// Adds one to the count of the slot, which is live `before`, as long as it is the same attempt's.
#[inline(always)]
fn count(slot: *mut Slot, mut before: State) -> bool {
    let attempt = before.without_count();
    let mut tries = 0;
    while tries < TRIES {
        if state(slot).replace(before.0, before.counted().0) {
            let now = ticks();
            // SAFETY: a live map value. Should another task write its own time at the same instant, either is right.
            unsafe {
                if before.count() == 0 {
                    write_volatile(&raw mut (*slot).first_ticks, now);
                }
                write_volatile(&raw mut (*slot).last_ticks, now);
            }
            return true;
        }
        before = State(state(slot).get());
        if before.without_count() != attempt {
            return false;
        }
        tries += 1;
    }
    // Too many at the same instant: this one is told on its own.
    false
}

/// Claims a slot for the attempt: one of use to nobody, or that whose attempt has been repeated least lately, all its repeats
/// being told.
#[inline(always)]
pub fn claim_in(table: &'static Array<Set>, scratch: &mut Scratch) {
    let number = set_of(scratch.key);
    let Some(set) = table.get_ptr_mut(number) else { return };
    let mut found = WAYS;
    let mut oldest = u64::MAX;
    let mut way = 0;
    while way < WAYS {
        // SAFETY: a live map value.
        let slot = unsafe { &raw mut (*set).0[way] };
        let now = State(state(slot).get());
        // SAFETY: as above; volatile, because others write it.
        let last = if now.is_live() { unsafe { read_volatile(&raw const (*slot).last_ticks) } } else { 0 };
        if !now.is_busy() && now.count() == 0 && last < oldest {
            oldest = last;
            found = way;
        }
        way += 1;
    }
    if found == WAYS {
        return;
    }
    // SAFETY: a live map value.
    let slot = unsafe { &raw mut (*set).0[found & (WAYS - 1)] };
    let before = State(state(slot).get());
    if before.is_busy() || before.count() != 0 || !state(slot).replace(before.0, before.claimed().0) {
        return;
    }
    scratch.record.call.fold =
        FoldRecord { slot: number * WAYS as u32 + found as u32, generation: before.claimed().generation() };
}

/// Lets the claimed slot count repeats, if the record was sent; else gives it back.
#[inline(always)]
pub fn conclude_in(table: &'static Array<Set>, scratch: &Scratch, sent: bool) {
    let FoldRecord { slot: number, generation: _ } = scratch.record.call.fold;
    if number == NOT_FOLDED {
        return;
    }
    let Some(set) = table.get_ptr_mut(number / WAYS as u32) else { return };
    // SAFETY: a live map value.
    let slot = unsafe { &raw mut (*set).0[memory::opaque(number.into()) as usize & (WAYS - 1)] };
    let claimed = State(state(slot).get());
    if !sent {
        state(slot).swap(claimed.freed().0);
        return;
    }
    let now = ticks();
    // SAFETY: a live map value, and ours as long as the slot is busy.
    unsafe {
        write_volatile(&raw mut (*slot).key, scratch.key);
        write_volatile(&raw mut (*slot).cgroup_id, scratch.record.header.cgroup_id);
        write_volatile(&raw mut (*slot).row, scratch.cgroup_row.into());
        write_volatile(&raw mut (*slot).told_ticks, now);
        write_volatile(&raw mut (*slot).last_ticks, now);
    }
    state(slot).swap(claimed.published().0);
}
