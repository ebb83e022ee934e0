//! JSON for Python objects: a writer with the bytes of `json.dumps` under Flask's settings, and a reader.
//!
//! Both know the plain types. Whatever is odd (dictionary keys that do not sort, lone surrogates, nesting beyond
//! [`DEEPEST`], a cycle, a malformed text) they leave to Python's `json` module by saying so: its bytes and its errors
//! are the reference, and an odd case is not worth a second implementation. Implements RFC 8259 as `json` does.

use std::borrow::Cow;
use std::io::Write;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDate, PyDateAccess, PyDateTime, PyDict, PyFloat, PyInt, PyList, PyString,
    PyTimeAccess, PyTuple, PyType, PyTzInfo, PyTzInfoAccess,
};
use pyo3::{PyTypeInfo, intern};

use crate::collector::CollectorPause;

/// Deeper nesting is left to Python, which raises `RecursionError`; a worker's stack must hold this many levels.
const DEEPEST: usize = 200;

/// The limit of `sys.set_int_max_str_digits` that Python starts with.
const MOST_DIGITS: usize = 4300;

/// How to write: the settings of a provider and the layout of one call.
pub(crate) struct Options<'py> {
    /// Sort the keys of objects.
    pub(crate) sort_keys: bool,
    /// Write other characters than ASCII as escapes.
    pub(crate) ensure_ascii: bool,
    /// Stands between items.
    pub(crate) item: Cow<'static, str>,
    /// Stands between a key and its value.
    pub(crate) key: Cow<'static, str>,
    /// One level of indentation; None writes all on one line.
    pub(crate) indent: Option<Cow<'static, str>>,
    /// Turns an unknown value into a known one.
    pub(crate) default: Option<Bound<'py, PyAny>>,
    /// Whether `default` is Flask's own, so that dates need not be asked about.
    pub(crate) flask_default: bool,
}

impl<'py> Options<'py> {
    /// The settings of an `app.json`, for compact text; None if its class writes in a way of its own.
    ///
    /// Call [`Options::respond`] for the layout that responses have.
    pub(crate) fn of_provider(provider: &Bound<'py, PyAny>) -> PyResult<Option<Self>> {
        let py = provider.py();
        let kind = provider.get_type();
        let ours = default_provider(py)?;
        if !kind.is(ours) {
            for method in [intern!(py, "dumps"), intern!(py, "loads")] {
                match kind.getattr(method) {
                    Ok(found) if found.is(&ours.getattr(method)?) => {}
                    _ => return Ok(None),
                }
            }
        }
        let own = provider.getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?;
        if own.contains(intern!(py, "dumps"))? || own.contains(intern!(py, "loads"))? {
            return Ok(None);
        }
        let default = provider.getattr(intern!(py, "default"))?;
        Ok(Some(Self {
            sort_keys: provider.getattr(intern!(py, "sort_keys"))?.is_truthy()?,
            ensure_ascii: provider.getattr(intern!(py, "ensure_ascii"))?.is_truthy()?,
            item: Cow::Borrowed(","),
            key: Cow::Borrowed(":"),
            indent: None,
            flask_default: default.is(flask_default(py)?),
            default: (!default.is_none()).then_some(default),
        }))
    }

    /// The same settings on one line.
    pub(crate) fn compact(mut self) -> Self {
        self.item = Cow::Borrowed(",");
        self.key = Cow::Borrowed(":");
        self.indent = None;
        self
    }

    /// The settings of an `app.json` for a response; None if its class has its own `response` or `dumps`.
    ///
    /// The text of a response ends with a newline, which the caller adds.
    pub(crate) fn of_response(provider: &Bound<'py, PyAny>, debug: bool) -> PyResult<Option<Self>> {
        let py = provider.py();
        let name = intern!(py, "response");
        let ours = default_provider(py)?;
        let kind = provider.get_type();
        if !kind.is(ours) && !kind.getattr(name)?.is(&ours.getattr(name)?) {
            return Ok(None);
        }
        if provider.getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?.contains(name)? {
            return Ok(None);
        }
        let Some(mut options) = Self::of_provider(provider)? else { return Ok(None) };
        let compact = provider.getattr(intern!(py, "compact"))?;
        if (compact.is_none() && debug) || compact.is(PyBool::new(py, false)) {
            options.key = Cow::Borrowed(": ");
            options.indent = Some(Cow::Borrowed("  "));
        }
        Ok(Some(options))
    }
}

pub(crate) fn default_provider(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "hipflask.json.provider", "DefaultJSONProvider")
}

fn flask_default(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static FUNCTION: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    Ok(FUNCTION
        .get_or_try_init(py, || py.import("hipflask.json.provider")?.getattr("_default").map(Bound::unbind))?
        .bind(py))
}

/// Appends an object's JSON text to `out`.
///
/// Returns false, with `out` as it was, if the object is to be written by `json.dumps`. An exception is one that
/// `default` raised.
pub(crate) fn dumps_into<'py>(
    obj: &Bound<'py, PyAny>,
    out: &mut Vec<u8>,
    options: &Options<'py>,
) -> PyResult<bool> {
    write(obj, out, options, false)
}

/// Appends an object's tagged JSON text to `out`: `hipflask.json.tag`'s, with its default tags.
pub(crate) fn dumps_tagged_into<'py>(
    obj: &Bound<'py, PyAny>,
    out: &mut Vec<u8>,
    options: &Options<'py>,
) -> PyResult<bool> {
    write(obj, out, options, true)
}

fn write<'py>(
    obj: &Bound<'py, PyAny>,
    out: &mut Vec<u8>,
    options: &Options<'py>,
    tagged: bool,
) -> PyResult<bool> {
    let before = out.len();
    let mut writer =
        Writer { py: obj.py(), out, options, tagged, pairs: Vec::new(), above: Above::default(), level: 0 };
    match writer.value(obj) {
        Ok(()) => Ok(true),
        Err(Stop::Leave) => {
            out.truncate(before);
            Ok(false)
        }
        Err(Stop::Raise(error)) => {
            out.truncate(before);
            Err(error)
        }
    }
}

/// Why writing or reading ended early.
enum Stop {
    /// Python's `json` has to do it.
    Leave,
    /// User code raised.
    Raise(PyErr),
}

impl From<PyErr> for Stop {
    fn from(error: PyErr) -> Self {
        Self::Raise(error)
    }
}

type Step<T = ()> = Result<T, Stop>;

struct Writer<'a, 'py> {
    py: Python<'py>,
    out: &'a mut Vec<u8>,
    options: &'a Options<'py>,
    /// Whether types are kept by tags.
    tagged: bool,
    /// A stack of the items of all objects that are being written: one allocation for all of them.
    pairs: Vec<(Bound<'py, PyString>, Bound<'py, PyAny>)>,
    /// The containers around the value, to find cycles.
    above: Above,
    /// How far to indent: the containers above, without the values that `default` stood in for.
    level: usize,
}

/// The containers around a value. Few are nested deeper than the array, so that writing most needs no allocation.
#[derive(Default)]
struct Above {
    near: [usize; 8],
    far: Vec<usize>,
    depth: usize,
}

impl Above {
    /// False if the container is there already, or nesting is too deep.
    fn push(&mut self, container: *mut pyo3::ffi::PyObject) -> bool {
        // Only compared, never followed.
        let address = container as usize;
        if self.depth >= DEEPEST || self.near.contains(&address) || self.far.contains(&address) {
            return false;
        }
        match self.near.get_mut(self.depth) {
            Some(slot) => *slot = address,
            None => self.far.push(address),
        }
        self.depth += 1;
        true
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        match self.near.get_mut(self.depth) {
            Some(slot) => *slot = 0,
            None => {
                self.far.pop();
            }
        }
    }
}

impl<'py> Writer<'_, 'py> {
    fn value(&mut self, value: &Bound<'py, PyAny>) -> Step {
        if value.is_exact_instance_of::<PyString>()
            && let Ok(text) = value.cast_exact::<PyString>()
        {
            return self.text(text);
        }
        if value.is_none() {
            self.out.extend_from_slice(b"null");
            return Ok(());
        }
        if value.is_exact_instance_of::<PyBool>() {
            let truth: &[u8] = if value.is_truthy()? { b"true" } else { b"false" };
            self.out.extend_from_slice(truth);
            return Ok(());
        }
        if value.is_exact_instance_of::<PyInt>() {
            return self.integer(value);
        }
        if value.is_exact_instance_of::<PyFloat>() {
            float(self.py, value.extract()?, self.out)?;
            return Ok(());
        }
        if value.is_exact_instance_of::<PyDict>()
            && let Ok(dict) = value.cast_exact::<PyDict>()
        {
            return self.object(dict);
        }
        if value.is_exact_instance_of::<PyList>()
            && let Ok(list) = value.cast_exact::<PyList>()
        {
            return self.array(value, list.len(), list.iter());
        }
        self.uncommon(value)
    }

    #[cold]
    fn uncommon(&mut self, value: &Bound<'py, PyAny>) -> Step {
        if self.tagged && self.with_tag(value)? {
            return Ok(());
        }
        if let Ok(text) = value.cast::<PyString>() {
            return self.text(text);
        }
        if value.is_instance_of::<PyInt>() {
            return self.integer(value);
        }
        if value.is_instance_of::<PyFloat>() {
            float(self.py, value.extract()?, self.out)?;
            return Ok(());
        }
        if let Ok(list) = value.cast::<PyList>() {
            return self.array(value, list.len(), list.iter());
        }
        if let Ok(tuple) = value.cast::<PyTuple>() {
            return self.array(value, tuple.len(), tuple.iter());
        }
        if let Ok(dict) = value.cast::<PyDict>() {
            return self.mapping(dict);
        }
        self.unknown(value)
    }

    /// Asks `default` about a value.
    fn unknown(&mut self, value: &Bound<'py, PyAny>) -> Step {
        let options = self.options;
        let Some(default) = &options.default else { return Err(Stop::Leave) };
        if options.flask_default
            && let Some(date) = plain_http_date(value)?
        {
            self.plain_text(&date);
            return Ok(());
        }
        self.enter(value)?;
        // What `default` returns is not tagged again.
        let tagged = std::mem::replace(&mut self.tagged, false);
        let answer = default.call1((value,))?;
        self.value(&answer)?;
        self.tagged = tagged;
        self.above.pop();
        Ok(())
    }

    fn enter(&mut self, container: &Bound<'py, PyAny>) -> Step {
        if self.above.push(container.as_ptr()) { Ok(()) } else { Err(Stop::Leave) }
    }

    fn new_line(&mut self) {
        if let Some(indent) = &self.options.indent {
            self.out.push(b'\n');
            for _ in 0..self.level {
                self.out.extend_from_slice(indent.as_bytes());
            }
        }
    }

    fn array(
        &mut self,
        container: &Bound<'py, PyAny>,
        len: usize,
        items: impl Iterator<Item = Bound<'py, PyAny>>,
    ) -> Step {
        if len == 0 {
            self.out.extend_from_slice(b"[]");
            return Ok(());
        }
        self.enter(container)?;
        self.level += 1;
        self.out.push(b'[');
        let mut first = true;
        for item in items {
            if !std::mem::replace(&mut first, false) {
                self.out.extend_from_slice(self.options.item.as_bytes());
            }
            self.new_line();
            self.value(&item)?;
        }
        self.above.pop();
        self.level -= 1;
        self.new_line();
        self.out.push(b']');
        Ok(())
    }

    fn object(&mut self, dict: &Bound<'py, PyDict>) -> Step {
        if dict.is_empty() {
            self.out.extend_from_slice(b"{}");
            return Ok(());
        }
        if self.tagged && dict.len() == 1 && self.looks_tagged(dict)? {
            return Ok(());
        }
        let base = self.pairs.len();
        let mut odd = false;
        // Nothing of the user's runs in the closure, so the dictionary does not change meanwhile.
        with_critical_section(dict.as_any(), || {
            for (key, value) in dict.iter() {
                match key.cast_into_exact::<PyString>() {
                    Ok(key) => self.pairs.push((key, value)),
                    Err(_) => {
                        odd = true;
                        break;
                    }
                }
            }
        });
        if odd {
            self.pairs.truncate(base);
            return self.odd_keys(dict, dict.iter());
        }
        self.object_of_pairs(dict, base)
    }

    /// Writes the pairs from `base` on, and takes them off the stack.
    fn object_of_pairs(&mut self, dict: &Bound<'py, PyDict>, base: usize) -> Step {
        if self.options.sort_keys
            && let Some(pairs) = self.pairs.get_mut(base..)
            && !pairs.is_sorted_by(|(a, _), (b, _)| utf8(a) <= utf8(b))
        {
            // The order of UTF-8 is the order of code points, which is how Python sorts. Keys with lone surrogates
            // are not in UTF-8; writing them leaves the object to Python anyway.
            pairs.sort_by(|(a, _), (b, _)| utf8(a).cmp(utf8(b)));
        }
        self.enter(dict)?;
        self.level += 1;
        self.out.push(b'{');
        for index in base..self.pairs.len() {
            let Some((key, value)) = self.pairs.get(index) else { break };
            let (key, value) = (key.clone(), value.clone());
            if index > base {
                self.out.extend_from_slice(self.options.item.as_bytes());
            }
            self.new_line();
            self.text(&key)?;
            self.out.extend_from_slice(self.options.key.as_bytes());
            self.value(&value)?;
        }
        self.pairs.truncate(base);
        self.above.pop();
        self.level -= 1;
        self.new_line();
        self.out.push(b'}');
        Ok(())
    }

    /// A dictionary of a subclass: its `items()` may be its own.
    fn mapping(&mut self, dict: &Bound<'py, PyDict>) -> Step {
        if dict.is_empty() {
            self.out.extend_from_slice(b"{}");
            return Ok(());
        }
        let mut items = Vec::with_capacity(dict.len());
        for item in dict.call_method0(intern!(self.py, "items"))?.try_iter()? {
            let item = item?;
            let Ok(pair) = item.cast_exact::<PyTuple>() else { return Err(Stop::Leave) };
            if pair.len() != 2 {
                return Err(Stop::Leave);
            }
            items.push((pair.get_item(0)?, pair.get_item(1)?));
        }
        self.odd_keys(dict, items.into_iter())
    }

    /// Keys that are not all exactly `str`: they are written as JSON would write them, in quotes.
    fn odd_keys(
        &mut self,
        dict: &Bound<'py, PyDict>,
        items: impl Iterator<Item = (Bound<'py, PyAny>, Bound<'py, PyAny>)>,
    ) -> Step {
        let base = self.pairs.len();
        let (mut texts, mut numbers) = (true, Vec::new());
        for (index, (key, value)) in items.enumerate() {
            let name = if let Ok(text) = key.cast::<PyString>() {
                texts &= text.is_exact_instance_of::<PyString>();
                text.clone()
            } else if key.is_exact_instance_of::<PyInt>() {
                texts = false;
                match key.extract::<i64>() {
                    Ok(number) => numbers.push((number, index)),
                    Err(_) => return Err(Stop::Leave),
                }
                key.str()?
            } else {
                texts = false;
                let mut text = Vec::new();
                if key.is_none() {
                    text.extend_from_slice(b"null");
                } else if key.is_exact_instance_of::<PyBool>() {
                    let truth: &[u8] = if key.is_truthy()? { b"true" } else { b"false" };
                    text.extend_from_slice(truth);
                } else if key.is_exact_instance_of::<PyFloat>() {
                    float(self.py, key.extract()?, &mut text)?;
                } else {
                    return Err(Stop::Leave);
                }
                PyString::new(self.py, &String::from_utf8_lossy(&text))
            };
            self.pairs.push((name, value));
        }
        let count = self.pairs.len() - base;
        if !self.options.sort_keys || texts || count < 2 {
            return self.object_of_pairs(dict, base);
        }
        if numbers.len() != count {
            // Mixed keys: Python says which of them do not compare.
            return Err(Stop::Leave);
        }
        numbers.sort_unstable();
        let sorted: Vec<_> =
            numbers.iter().filter_map(|(_, index)| self.pairs.get(base + index).cloned()).collect();
        self.pairs.truncate(base);
        self.enter(dict)?;
        self.level += 1;
        self.out.push(b'{');
        for (index, (key, value)) in sorted.iter().enumerate() {
            if index > 0 {
                self.out.extend_from_slice(self.options.item.as_bytes());
            }
            self.new_line();
            self.text(key)?;
            self.out.extend_from_slice(self.options.key.as_bytes());
            self.value(value)?;
        }
        self.above.pop();
        self.level -= 1;
        self.new_line();
        self.out.push(b'}');
        Ok(())
    }

    fn integer(&mut self, value: &Bound<'py, PyAny>) -> Step {
        if let Ok(number) = value.extract::<i64>() {
            integer(number, self.out);
        } else if value.is_exact_instance_of::<PyInt>() {
            // More digits than Python cares to write are an error that Python words.
            let digits = value.repr().map_err(|_| Stop::Leave)?;
            self.out.extend_from_slice(utf8(&digits));
        } else {
            return Err(Stop::Leave);
        }
        Ok(())
    }

    fn text(&mut self, text: &Bound<'py, PyString>) -> Step {
        let text = text.to_str().map_err(|_| Stop::Leave)?;
        escape(text, self.options.ensure_ascii, self.out);
        Ok(())
    }

    /// Text that needs no escapes.
    fn plain_text(&mut self, text: &str) {
        self.out.push(b'"');
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'"');
    }

    fn open_tag(&mut self, tag: &str) {
        self.out.push(b'{');
        self.plain_text(tag);
        self.out.push(b':');
    }

    /// Writes a dictionary of one item whose key could be taken for a tag; false if its key is not one.
    fn looks_tagged(&mut self, dict: &Bound<'py, PyDict>) -> Step<bool> {
        let Some((key, value)) = dict.iter().next() else { return Ok(false) };
        let Ok(key) = key.cast::<PyString>() else { return Ok(false) };
        let Ok(key) = key.to_str() else { return Ok(false) };
        if !TAGS.contains(&key) {
            return Ok(false);
        }
        self.enter(dict)?;
        self.open_tag(" di");
        self.open_tag(&format!("{key}__"));
        self.value(&value)?;
        self.out.extend_from_slice(b"}}");
        self.above.pop();
        Ok(true)
    }

    /// Writes a value that has a tag; false if it has none. In the order of the default tags.
    fn with_tag(&mut self, value: &Bound<'py, PyAny>) -> Step<bool> {
        if value.is_instance_of::<PyDict>() || value.is_instance_of::<PyList>() {
            // Subclasses may walk in their own ways, which Python's tags follow.
            return Err(Stop::Leave);
        }
        if let Ok(tuple) = value.cast::<PyTuple>() {
            if !value.is_exact_instance_of::<PyTuple>() {
                return Err(Stop::Leave);
            }
            self.open_tag(" t");
            self.array(value, tuple.len(), tuple.iter())?;
        } else if let Ok(bytes) = value.cast::<PyBytes>() {
            self.open_tag(" b");
            self.plain_text(&crate::session::base64_standard(bytes.as_bytes()));
        } else if value.hasattr(intern!(self.py, "__html__"))? {
            let method = value.getattr(intern!(self.py, "__html__"))?;
            if !method.is_callable() {
                return Err(Stop::Leave);
            }
            let markup = method.call0()?.str()?;
            self.open_tag(" m");
            self.text(&markup)?;
        } else if value.is_instance(uuid_class(self.py)?)? {
            let hex = value.getattr(intern!(self.py, "hex"))?;
            let Ok(hex) = hex.cast_exact::<PyString>() else { return Err(Stop::Leave) };
            self.open_tag(" u");
            self.text(hex)?;
        } else if value.is_instance_of::<PyDateTime>() {
            self.open_tag(" d");
            if let Some(date) = plain_http_date(value)? {
                self.plain_text(&date);
            } else {
                let date = self
                    .py
                    .import(intern!(self.py, "hipflask.werkzeug.http"))?
                    .getattr(intern!(self.py, "http_date"))?
                    .call1((value,))?
                    .str()?;
                self.text(&date)?;
            }
        } else {
            return Ok(false);
        }
        self.out.push(b'}');
        Ok(true)
    }
}

/// The tags of `hipflask.json.tag`.
const TAGS: [&str; 6] = [" di", " t", " b", " m", " u", " d"];

fn uuid_class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "uuid", "UUID")
}

fn utf8<'a>(text: &'a Bound<'_, PyString>) -> &'a [u8] {
    text.to_str().map_or(b"", str::as_bytes)
}

fn integer(number: i64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    let mut rest = number.unsigned_abs();
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        start -= 1;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(digits.get(start..).unwrap_or_default());
}

/// Writes a float as Python's `repr` does: the shortest digits that read back as the same number, with an exponent
/// below 1e-4 and from 1e16 on.
fn float(py: Python<'_>, number: f64, out: &mut Vec<u8>) -> PyResult<()> {
    let start = out.len();
    short_float(number, out);
    let digits = out.iter().skip(start).filter(|byte| byte.is_ascii_digit()).count();
    // Where two shortest texts are equally near, Rust rounds up and Python to even. A text of up to 15 digits has no
    // such rival: two of them are further apart than two floats.
    if digits > 15 {
        out.truncate(start);
        out.extend_from_slice(utf8(&PyFloat::new(py, number).repr()?));
    }
    Ok(())
}

fn short_float(number: f64, out: &mut Vec<u8>) {
    if !number.is_finite() {
        let name: &[u8] = if number.is_nan() {
            b"NaN"
        } else if number > 0.0 {
            b"Infinity"
        } else {
            b"-Infinity"
        };
        out.extend_from_slice(name);
        return;
    }
    let magnitude = number.abs();
    // Writing to a vector does not fail.
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let start = out.len();
        let _ = write!(out, "{number:e}");
        // Rust writes 1e-7 and 1e16 where Python writes 1e-07 and 1e+16.
        if let Some(at) = out.iter().skip(start).position(|byte| *byte == b'e').map(|at| start + at) {
            let exponent = out.split_off(at + 1);
            let (sign, digits) = match exponent.strip_prefix(b"-") {
                Some(digits) => (b'-', digits),
                None => (b'+', exponent.as_slice()),
            };
            out.push(sign);
            if digits.len() < 2 {
                out.push(b'0');
            }
            out.extend_from_slice(digits);
        }
    } else {
        let start = out.len();
        let _ = write!(out, "{number}");
        if !out.iter().skip(start).any(|byte| *byte == b'.') {
            out.extend_from_slice(b".0");
        }
    }
}

/// How each byte of a text is written: 0 as it is, 1 as `\u00xx`, 2 by looking at the character, else `\` and this.
const ESCAPES: [u8; 256] = {
    let mut table = [0_u8; 256];
    let mut byte = 0;
    while byte < 256 {
        if byte < 0x20 {
            table[byte] = 1;
        } else if byte >= 0x7f {
            table[byte] = 2;
        }
        byte += 1;
    }
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table[0x08] = b'b';
    table[0x0c] = b'f';
    table[b'\n' as usize] = b'n';
    table[b'\r' as usize] = b'r';
    table[b'\t' as usize] = b't';
    table
};

fn escape(text: &str, ensure_ascii: bool, out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text;
    loop {
        let plain = rest
            .bytes()
            .position(|byte| {
                let how = ESCAPES.get(usize::from(byte)).copied().unwrap_or(0);
                how != 0 && (how != 2 || ensure_ascii)
            })
            .unwrap_or(rest.len());
        let (run, special) = rest.split_at(plain);
        out.extend_from_slice(run.as_bytes());
        let Some(character) = special.chars().next() else { break };
        rest = special.get(character.len_utf8()..).unwrap_or_default();
        let how = u8::try_from(character)
            .ok()
            .and_then(|byte| ESCAPES.get(usize::from(byte)))
            .copied()
            .unwrap_or(2);
        if how > 2 {
            out.extend_from_slice(&[b'\\', how]);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                unicode_escape(*unit, out);
            }
        }
    }
    out.push(b'"');
}

fn unicode_escape(unit: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        let digit = (unit >> shift) & 0xf;
        out.push(b"0123456789abcdef".get(usize::from(digit)).copied().unwrap_or(b'0'));
    }
}

/// The HTTP date of a date, or of a datetime without a zone or in UTC; None for anything else.
fn plain_http_date(value: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    let py = value.py();
    if value.is_exact_instance_of::<PyDateTime>() {
        let moment = value.cast_exact::<PyDateTime>()?;
        if let Some(zone) = moment.get_tzinfo()
            && !zone.is(PyTzInfo::utc(py)?)
        {
            return Ok(None);
        }
        let time = (moment.get_hour(), moment.get_minute(), moment.get_second());
        return Ok(Some(http_date(moment.get_year(), moment.get_month(), moment.get_day(), time)));
    }
    if value.is_exact_instance_of::<PyDate>() {
        let day = value.cast_exact::<PyDate>()?;
        return Ok(Some(http_date(day.get_year(), day.get_month(), day.get_day(), (0, 0, 0))));
    }
    Ok(None)
}

/// RFC 9110 §5.6.7, IMF-fixdate.
fn http_date(year: i32, month: u8, day: u8, (hour, minute, second): (u8, u8, u8)) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // Sakamoto's method for the day of the week.
    const SHIFTS: [i32; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
    let index = usize::from(month.saturating_sub(1));
    let shifted = if month < 3 { year - 1 } else { year };
    let weekday = (shifted + shifted / 4 - shifted / 100
        + shifted / 400
        + SHIFTS.get(index).copied().unwrap_or(0)
        + i32::from(day))
    .rem_euclid(7);
    let weekday = usize::try_from(weekday).ok().and_then(|at| DAYS.get(at)).copied().unwrap_or("Sun");
    let month = MONTHS.get(index).copied().unwrap_or("Jan");
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Text up to this many bytes is read with the garbage collector as it is: it makes too few objects to matter.
const COLLECTED: usize = 64 * 1024;

/// Reads JSON text; None if Python's `json` has to, because the text is malformed or not plain.
pub(crate) fn loads<'py>(py: Python<'py>, text: &[u8]) -> PyResult<Option<Bound<'py, PyAny>>> {
    read(py, text, None)
}

/// Turns what a tag held back into its value. The key is one of [`TAGS`].
pub(crate) type Untag<'py> = dyn Fn(&str, &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>>;

/// Reads tagged JSON text, as `TaggedJSONSerializer.loads` with the default tags.
pub(crate) fn loads_tagged<'py>(
    py: Python<'py>,
    text: &[u8],
    untag: &Untag<'py>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    read(py, text, Some(untag))
}

fn read<'py>(
    py: Python<'py>,
    text: &[u8],
    untag: Option<&Untag<'py>>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Ok(text) = std::str::from_utf8(text) else { return Ok(None) };
    let _pause = (untag.is_none() && text.len() > COLLECTED).then(|| CollectorPause::new(py));
    let mut reader = Reader { py, text, at: 0, untag, depth: 0, keys: [const { None }; KEYS] };
    match reader.document() {
        Ok(value) => Ok(Some(value)),
        Err(Stop::Leave) => Ok(None),
        Err(Stop::Raise(error)) => Err(error),
    }
}

struct Reader<'a, 'py> {
    py: Python<'py>,
    text: &'a str,
    at: usize,
    untag: Option<&'a Untag<'py>>,
    depth: usize,
    /// Keys met last. Objects in a list have the same ones, which then are made and hashed once, as `json.loads` does.
    keys: [Option<(&'a str, Bound<'py, PyString>)>; KEYS],
}

/// How many keys are remembered; a power of two.
const KEYS: usize = 32;

impl<'a, 'py> Reader<'a, 'py> {
    fn document(&mut self) -> Step<Bound<'py, PyAny>> {
        self.skip_space();
        let value = self.value()?;
        self.skip_space();
        if self.at == self.text.len() { Ok(value) } else { Err(Stop::Leave) }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Step {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(Stop::Leave)
    }

    fn word(&mut self, word: &str) -> Step {
        if self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            self.at += word.len();
            return Ok(());
        }
        Err(Stop::Leave)
    }

    fn value(&mut self) -> Step<Bound<'py, PyAny>> {
        match self.peek() {
            Some(b'"') => Ok(PyString::new(self.py, &self.string()?).into_any()),
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b't') => self.word("true").map(|()| PyBool::new(self.py, true).to_owned().into_any()),
            Some(b'f') => self.word("false").map(|()| PyBool::new(self.py, false).to_owned().into_any()),
            Some(b'n') => self.word("null").map(|()| self.py.None().into_bound(self.py)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(Stop::Leave),
        }
    }

    fn nested(
        &mut self,
        container: impl FnOnce(&mut Self) -> Step<Bound<'py, PyAny>>,
    ) -> Step<Bound<'py, PyAny>> {
        if self.depth >= DEEPEST {
            return Err(Stop::Leave);
        }
        self.depth += 1;
        self.at += 1;
        self.skip_space();
        let value = container(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn array(&mut self) -> Step<Bound<'py, PyAny>> {
        // Before its items, as Python's reader makes it: the garbage collector is quicker with parents that are older
        // than their children.
        let list = PyList::empty(self.py);
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(list.into_any());
        }
        loop {
            list.append(self.value()?)?;
            self.skip_space();
            if self.peek() == Some(b']') {
                self.at += 1;
                return Ok(list.into_any());
            }
            self.take(b',')?;
            self.skip_space();
        }
    }

    fn object(&mut self) -> Step<Bound<'py, PyAny>> {
        let dict = PyDict::new(self.py);
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(dict.into_any());
        }
        let last = loop {
            let key = self.string()?;
            self.skip_space();
            self.take(b':')?;
            self.skip_space();
            let value = self.value()?;
            let name = match &key {
                Cow::Borrowed(text) => self.key(text),
                Cow::Owned(text) => PyString::new(self.py, text),
            };
            dict.set_item(name, value)?;
            self.skip_space();
            if self.peek() == Some(b'}') {
                self.at += 1;
                break key;
            }
            self.take(b',')?;
            self.skip_space();
        };
        if let Some(untag) = self.untag
            && dict.len() == 1
            && TAGS.contains(&&*last)
            && let Some((_, value)) = dict.iter().next()
        {
            return untag(&last, &value)?.ok_or(Stop::Leave);
        }
        Ok(dict.into_any())
    }

    /// A key as Python's string, the same one as before where it is remembered.
    fn key(&mut self, text: &'a str) -> Bound<'py, PyString> {
        let [first, .., last] = text.as_bytes() else { return PyString::new(self.py, text) };
        let place = usize::from(*first) ^ usize::from(*last).rotate_left(2) ^ text.len().rotate_left(3);
        let Some(kept) = self.keys.get_mut(place % KEYS) else { return PyString::new(self.py, text) };
        match kept {
            Some((known, object)) if *known == text => object.clone(),
            _ => kept.insert((text, PyString::new(self.py, text))).1.clone(),
        }
    }

    fn string(&mut self) -> Step<Cow<'a, str>> {
        self.take(b'"')?;
        let text = self.text;
        let rest = text.get(self.at..).ok_or(Stop::Leave)?;
        let end =
            rest.bytes().position(|byte| byte == b'"' || byte == b'\\' || byte < 0x20).ok_or(Stop::Leave)?;
        let plain = rest.get(..end).ok_or(Stop::Leave)?;
        self.at += end;
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        let mut string = plain.to_owned();
        loop {
            let rest = text.get(self.at..).ok_or(Stop::Leave)?;
            let end = rest
                .bytes()
                .position(|byte| byte == b'"' || byte == b'\\' || byte < 0x20)
                .ok_or(Stop::Leave)?;
            string.push_str(rest.get(..end).ok_or(Stop::Leave)?);
            self.at += end;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(string));
                }
                Some(b'\\') => {
                    self.at += 1;
                    let character = self.escaped()?;
                    string.push(character);
                }
                _ => return Err(Stop::Leave),
            }
        }
    }

    fn escaped(&mut self) -> Step<char> {
        let byte = self.peek().ok_or(Stop::Leave)?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.unit()?;
                if (0xd800..0xdc00).contains(&unit) {
                    self.word("\\u")?;
                    let low = self.unit()?;
                    return char::decode_utf16([unit, low]).next().and_then(Result::ok).ok_or(Stop::Leave);
                }
                char::from_u32(u32::from(unit)).ok_or(Stop::Leave)?
            }
            _ => return Err(Stop::Leave),
        })
    }

    fn unit(&mut self) -> Step<u16> {
        let digits = self.text.get(self.at..self.at + 4).ok_or(Stop::Leave)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Stop::Leave);
        }
        self.at += 4;
        u16::from_str_radix(digits, 16).map_err(|_| Stop::Leave)
    }

    fn digits(&mut self) -> Step {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(Stop::Leave) } else { Ok(()) }
    }

    fn number(&mut self) -> Step<Bound<'py, PyAny>> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        let mut whole = true;
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
            whole = false;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
            whole = false;
        }
        let text = self.text.get(start..self.at).ok_or(Stop::Leave)?;
        if !whole {
            let number: f64 = text.parse().map_err(|_| Stop::Leave)?;
            return Ok(PyFloat::new(self.py, number).into_any());
        }
        match text.parse::<i64>() {
            Ok(number) => Ok(number.into_pyobject(self.py).map_err(PyErr::from)?.into_any()),
            // More digits than Python reads by default: it says so, or reads them if it was told to.
            Err(_) if text.len() > MOST_DIGITS => Err(Stop::Leave),
            Err(_) => {
                let int = PyInt::type_object(self.py);
                int.call1((text,)).map_err(|_| Stop::Leave)
            }
        }
    }
}

/// Write an object as JSON text.
///
/// Args:
///     obj: What to write.
///     default: Turns an unknown value into a known one.
///     sort_keys, ensure_ascii, separators, indent: As of `json.dumps`.
///
/// Returns:
///     The text of `json.dumps`, or None if it has to write the object.
#[pyfunction]
#[pyo3(signature = (obj, *, default=None, sort_keys=None, ensure_ascii=None, separators=None, indent=None))]
fn json_dumps<'py>(
    obj: &Bound<'py, PyAny>,
    default: Option<Bound<'py, PyAny>>,
    sort_keys: Option<&Bound<'py, PyAny>>,
    ensure_ascii: Option<&Bound<'py, PyAny>>,
    separators: Option<&Bound<'py, PyAny>>,
    indent: Option<&Bound<'py, PyAny>>,
) -> PyResult<Option<Bound<'py, PyString>>> {
    let py = obj.py();
    let indent = match indent {
        None => None,
        Some(width) => Some(if let Ok(text) = width.extract::<String>() {
            text
        } else if let Ok(width) = width.extract::<i64>() {
            " ".repeat(usize::try_from(width).unwrap_or(0).min(1000))
        } else {
            return Ok(None);
        }),
    };
    let (item, key) = match separators {
        Some(pair) => match pair.extract::<(String, String)>() {
            Ok((item, key)) => (Cow::Owned(item), Cow::Owned(key)),
            Err(_) => return Ok(None),
        },
        None => (Cow::Borrowed(if indent.is_some() { "," } else { ", " }), Cow::Borrowed(": ")),
    };
    let options = Options {
        sort_keys: sort_keys.map_or(Ok(false), PyAnyMethods::is_truthy)?,
        ensure_ascii: ensure_ascii.map_or(Ok(true), PyAnyMethods::is_truthy)?,
        item,
        key,
        indent: indent.map(Cow::Owned),
        flask_default: match &default {
            Some(default) => default.is(flask_default(py)?),
            None => false,
        },
        default,
    };
    let mut out = Vec::with_capacity(256);
    if !dumps_into(obj, &mut out, &options)? {
        return Ok(None);
    }
    match std::str::from_utf8(&out) {
        Ok(text) => Ok(Some(PyString::new(py, text))),
        Err(_) => Ok(None),
    }
}

/// Write an object as the text of a response by an app's provider.
///
/// Returns:
///     The text with its newline, or None if the provider has a way of its own, or `json.dumps` has to write the object.
#[pyfunction]
fn json_response_text<'py>(
    provider: &Bound<'py, PyAny>,
    obj: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyString>>> {
    let py = obj.py();
    let debug = provider.getattr(intern!(py, "compact"))?.is_none()
        && provider.getattr(intern!(py, "_app"))?.getattr(intern!(py, "debug"))?.is_truthy()?;
    let Some(options) = Options::of_response(provider, debug)? else { return Ok(None) };
    let mut out = Vec::with_capacity(256);
    if !dumps_into(obj, &mut out, &options)? {
        return Ok(None);
    }
    out.push(b'\n');
    Ok(std::str::from_utf8(&out).ok().map(|text| PyString::new(py, text)))
}

/// Read JSON text.
///
/// Args:
///     s: `str`, `bytes` or `bytearray`.
///
/// Returns:
///     The value, or NotImplemented if `json.loads` has to read the text.
#[pyfunction]
fn json_loads<'py>(s: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = s.py();
    let value = if let Ok(text) = s.cast::<PyString>() {
        match text.to_str() {
            Ok(text) => loads(py, text.as_bytes())?,
            Err(_) => None,
        }
    } else if let Ok(bytes) = s.cast::<PyBytes>() {
        loads(py, bytes.as_bytes())?
    } else if let Ok(bytes) = s.cast::<PyByteArray>() {
        loads(py, &bytes.to_vec())?
    } else {
        None
    };
    Ok(value.unwrap_or_else(|| py.NotImplemented().into_bound(py)))
}

/// Adds this file's names to `hipflask._core`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(json_dumps, module)?)?;
    module.add_function(wrap_pyfunction!(json_response_text, module)?)?;
    module.add_function(wrap_pyfunction!(json_loads, module)?)
}
