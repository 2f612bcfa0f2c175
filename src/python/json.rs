//! JSON of plain values, written without a call into Python.
//!
//! What most handlers give is a small tree of exact built-in types, and for those the text is
//! written here. Everything else (floats, subclasses, structs, dates, keys that are no strings,
//! depth, size) is left to msgspec: [`write_plain`] then says so, and the text that it would have
//! written is the same, byte for byte.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;

/// Beyond this many containers inside each other msgspec takes over, and knows when to stop.
const DEPTH: usize = 16;
/// Beyond this many bytes msgspec takes over: it is as fast on large values, and what was written
/// by then is lost if the rest holds something else.
const SIZE: usize = 4096;

/// Appends `value` as JSON to `out`. False if it is more than this writes; then what has been
/// appended is of no use.
#[must_use]
pub fn write_plain(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> bool {
    write_value(value.as_borrowed(), out, DEPTH)
}

fn write_value(value: Borrowed<'_, '_, PyAny>, out: &mut Vec<u8>, depth: usize) -> bool {
    let object = value.as_ptr();
    // SAFETY: type checks of a live object.
    unsafe {
        if ffi::PyUnicode_CheckExact(object) != 0 {
            write_string(value, out)
        } else if ffi::PyLong_CheckExact(object) != 0 {
            write_integer(value, out)
        } else if ffi::PyDict_CheckExact(object) != 0 {
            write_dict(value, out, depth)
        } else if ffi::PyList_CheckExact(object) != 0 {
            write_list(value, out, depth)
        } else if object == ffi::Py_None() {
            out.extend_from_slice(b"null");
            true
        } else if object == ffi::Py_True() {
            out.extend_from_slice(b"true");
            true
        } else if object == ffi::Py_False() {
            out.extend_from_slice(b"false");
            true
        } else {
            false
        }
    }
}

/// `value` is a dict, by its exact type.
fn write_dict(value: Borrowed<'_, '_, PyAny>, out: &mut Vec<u8>, depth: usize) -> bool {
    let py = value.py();
    let Some(depth) = depth.checked_sub(1) else { return false };
    out.push(b'{');
    let start = out.len();
    let fits = with_critical_section(&value, || {
        let (mut position, mut key, mut item) = (0, std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: a live dict, which no other thread changes now. What `PyDict_Next` lends is
        // alive until the dict changes: strings at hand and numbers are written without a call that
        // could let go of the critical section, all else is held on to first.
        unsafe {
            while ffi::PyDict_Next(value.as_ptr(), &mut position, &mut key, &mut item) != 0 {
                if ffi::PyUnicode_CheckExact(key) == 0 || out.len() > SIZE {
                    return false;
                }
                if out.len() > start {
                    out.push(b',');
                }
                let (key, item) = (Borrowed::from_ptr(py, key), Borrowed::from_ptr(py, item));
                let fits = match at_hand(key) {
                    Some(key) => write_text(key, out) && write_member(item, out, depth),
                    // Who waits for the key may find the item gone.
                    None => {
                        let item = item.to_owned();
                        write_string(key, out) && write_member(item.as_borrowed(), out, depth)
                    }
                };
                if !fits {
                    return false;
                }
            }
        }
        true
    });
    out.push(b'}');
    fits
}

/// `value` is a list, by its exact type.
fn write_list(value: Borrowed<'_, '_, PyAny>, out: &mut Vec<u8>, depth: usize) -> bool {
    let py = value.py();
    let Some(depth) = depth.checked_sub(1) else { return false };
    out.push(b'[');
    let fits = with_critical_section(&value, || {
        let mut index = 0;
        // SAFETY: as for a dict; the length is asked for each time, since a nested container may
        // have let another thread change the list.
        unsafe {
            while index < ffi::PyList_GET_SIZE(value.as_ptr()) {
                if out.len() > SIZE {
                    return false;
                }
                if index > 0 {
                    out.push(b',');
                }
                let item = ffi::PyList_GET_ITEM(value.as_ptr(), index);
                if !write_item(Borrowed::from_ptr(py, item), out, depth) {
                    return false;
                }
                index += 1;
            }
        }
        true
    });
    out.push(b']');
    fits
}

/// Writes what stands behind a key.
fn write_member(item: Borrowed<'_, '_, PyAny>, out: &mut Vec<u8>, depth: usize) -> bool {
    out.push(b':');
    write_item(item, out, depth)
}

/// Writes what a container lends. Another thread may take a nested container out of it as soon as
/// the nested one's critical section suspends the outer one, so that one is owned meanwhile.
fn write_item(item: Borrowed<'_, '_, PyAny>, out: &mut Vec<u8>, depth: usize) -> bool {
    // SAFETY: a type check of a live object.
    if unsafe { ffi::PyUnicode_CheckExact(item.as_ptr()) } != 0 {
        return write_string(item, out);
    }
    // SAFETY: as above.
    if unsafe { ffi::PyLong_CheckExact(item.as_ptr()) } != 0 {
        return write_integer(item, out);
    }
    let owned = item.to_owned();
    write_value(owned.as_borrowed(), out, depth)
}

/// `value` is an int, by its exact type.
fn write_integer(value: Borrowed<'_, '_, PyAny>, out: &mut Vec<u8>) -> bool {
    let mut overflow = 0;
    // SAFETY: an int of CPython's own: no code of anybody else runs, and no exception is set.
    let number = unsafe { ffi::PyLong_AsLongLongAndOverflow(value.as_ptr(), &raw mut overflow) };
    if overflow != 0 {
        return false;
    }
    if (0..10).contains(&number) {
        out.push(b'0' + number as u8);
        return true;
    }
    if number < 0 {
        out.push(b'-');
    }
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
    true
}

/// `value` is a str, by its exact type.
fn write_string(value: Borrowed<'_, '_, PyAny>, out: &mut Vec<u8>) -> bool {
    match at_hand(value) {
        Some(text) => write_text(text, out),
        None => {
            // Its container may let go of it.
            let owned = value.to_owned();
            utf8(owned.as_borrowed()).is_some_and(|text| write_text(text, out))
        }
    }
}

/// The UTF-8 of a str, if it can be had without a call that could let go of a critical section:
/// without the GIL CPython takes the lock of a str that is not ASCII to encode it, and who waits for
/// a lock lets go of all others.
#[cfg(Py_GIL_DISABLED)]
fn at_hand<'a>(value: Borrowed<'a, '_, PyAny>) -> Option<&'a [u8]> {
    let object = value.as_ptr();
    // SAFETY: a str of the exact type has its characters behind its struct, and they never change. It
    // is this struct, the shorter one, if all of them are ASCII: a byte for each.
    unsafe {
        let text = ffi::PyUnicode_DATA(object).cast::<u8>();
        let is_ascii = text == object.cast::<ffi::PyASCIIObject>().add(1).cast();
        let length = ffi::PyUnicode_GET_LENGTH(object).unsigned_abs();
        is_ascii.then(|| std::slice::from_raw_parts(text, length))
    }
}

/// The UTF-8 of a str: no other thread runs while it is encoded.
#[cfg(not(Py_GIL_DISABLED))]
fn at_hand<'a>(value: Borrowed<'a, '_, PyAny>) -> Option<&'a [u8]> {
    utf8(value)
}

/// The UTF-8 of a str; `None` where it has none.
fn utf8<'a>(value: Borrowed<'a, '_, PyAny>) -> Option<&'a [u8]> {
    let mut length = 0;
    // SAFETY: a str; the result is null with an exception set, or its UTF-8, which lives as long
    // as the str.
    unsafe {
        let text = ffi::PyUnicode_AsUTF8AndSize(value.as_ptr(), &raw mut length);
        if text.is_null() {
            // A lone surrogate: msgspec raises in its own words.
            ffi::PyErr_Clear();
            return None;
        }
        Some(std::slice::from_raw_parts(text.cast::<u8>(), length.unsigned_abs()))
    }
}

/// `text` is UTF-8.
fn write_text(text: &[u8], out: &mut Vec<u8>) -> bool {
    if text.len() > SIZE {
        return false;
    }
    out.reserve(text.len() + 2);
    // SAFETY: there is room for the text and two marks behind what is written, and all of it is
    // written before it counts; `text` belongs to Python, so it is not in `out`.
    unsafe {
        let end = out.as_mut_ptr().add(out.len());
        if copy_verbatim(text, end.add(1)) {
            end.write(b'"');
            end.add(1 + text.len()).write(b'"');
            out.set_len(out.len() + text.len() + 2);
            return true;
        }
    }
    write_escaped(text, out);
    true
}

/// Copies `text` to `to`; whether JSON has all of it as it is. Takes eight bytes at once; the last
/// ones are those up to the end, some of them for a second time.
///
/// # Safety
/// `text.len()` bytes can be written at `to`, and are none of `text`.
unsafe fn copy_verbatim(text: &[u8], to: *mut u8) -> bool {
    // SAFETY: each of these writes ends where `text` does, at most.
    unsafe {
        if let Some(last) = text.last_chunk::<8>() {
            let mut found = special(*last);
            for (at, word) in text.as_chunks::<8>().0.iter().enumerate() {
                to.add(8 * at).cast::<[u8; 8]>().write(*word);
                found |= special(*word);
            }
            to.add(text.len() - 8).cast::<[u8; 8]>().write(*last);
            found == 0
        } else if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>())
        {
            to.cast::<[u8; 4]>().write(*first);
            to.add(text.len() - 4).cast::<[u8; 4]>().write(*last);
            let word =
                u64::from(u32::from_ne_bytes(*first)) << 32 | u64::from(u32::from_ne_bytes(*last));
            special(word.to_ne_bytes()) == 0
        } else {
            let mut fits = true;
            for (at, &byte) in text.iter().enumerate() {
                to.add(at).write(byte);
                fits &= ESCAPES[byte as usize] == 0;
            }
            fits
        }
    }
}

/// Zero if none of these bytes needs an escape. Behind one that does, others may count as well.
fn special(bytes: [u8; 8]) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;

    let word = u64::from_ne_bytes(bytes);
    let quote = word ^ (ONES * 0x22);
    let backslash = word ^ (ONES * 0x5c);
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    (below(word, 0x20) | below(quote, 1) | below(backslash, 1)) & HIGH
}

#[cold]
fn write_escaped(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for &byte in text {
        match ESCAPES[byte as usize] {
            0 => out.push(byte),
            b'u' => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
            letter => out.extend_from_slice(&[b'\\', letter]),
        }
    }
    out.push(b'"');
}

/// What stands behind the backslash for a byte; zero for one that needs none.
static ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = b'u';
        control += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0a] = b'n';
    table[0x0c] = b'f';
    table[0x0d] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

#[cfg(test)]
mod tests {
    #[cfg(Py_GIL_DISABLED)]
    use {
        pyo3::types::{PyDict, PyList, PyString},
        std::sync::mpsc,
        std::thread,
        std::time::Duration,
    };

    use super::*;

    #[test]
    fn a_text_of_any_length_is_copied_and_what_needs_an_escape_is_found_anywhere() {
        for length in 0..40 {
            let text: Vec<u8> = (b'a'..=b'z').cycle().take(length).collect();
            let mut out = b"before".to_vec();
            assert!(write_text(&text, &mut out));
            let written = String::from_utf8(out).unwrap();
            assert_eq!(written, format!("before\"{}\"", String::from_utf8_lossy(&text)));
            for at in 0..length {
                let mut text = text.clone();
                text[at] = b'"';
                let mut out = b"before".to_vec();
                assert!(write_text(&text, &mut out));
                let expected = String::from_utf8_lossy(&text).replace('"', "\\\"");
                assert_eq!(String::from_utf8(out).unwrap(), format!("before\"{expected}\""));
            }
        }
    }

    #[cfg(Py_GIL_DISABLED)]
    #[test]
    fn what_a_dict_lends_is_there_when_a_key_has_been_waited_for() {
        Python::initialize();
        let (lend, lent) = mpsc::channel::<Py<PyDict>>();
        // The list is of the thread that takes it out: without another reference it ends at once.
        let emptied = thread::spawn(move || {
            Python::attach(|py| {
                let (dict, key) = (PyDict::new(py), PyString::new(py, "schl\u{fc}ssel"));
                dict.set_item(&key, PyList::new(py, [1, 2, 3]).unwrap()).unwrap();
                with_critical_section(&key, || {
                    lend.send(dict.clone().unbind()).unwrap();
                    // Who writes the dict waits for the key's lock by then, and has let go of the dict's.
                    thread::sleep(Duration::from_millis(200));
                    dict.clear();
                });
            });
        });
        let dict = lent.recv().unwrap();
        let mut out = Vec::new();
        assert!(Python::attach(|py| write_plain(dict.bind(py), &mut out)));
        emptied.join().unwrap();
        assert_eq!(String::from_utf8_lossy(&out), "{\"schl\u{fc}ssel\":[1,2,3]}");
    }

    #[cfg(Py_GIL_DISABLED)]
    #[test]
    fn an_ascii_text_takes_no_lock() {
        Python::initialize();
        Python::attach(|py| {
            let text = |text| PyString::new(py, text).into_any();
            for ascii in ["", "x", "ascii only"] {
                assert_eq!(at_hand(text(ascii).as_borrowed()), Some(ascii.as_bytes()));
            }
            for other in ["\u{e9}", "\u{20ac}", "\u{1f600}"] {
                assert_eq!(at_hand(text(other).as_borrowed()), None);
            }
        });
    }
}
