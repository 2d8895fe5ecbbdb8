// What is on the labels that scanners read: element strings of GS1 (GS1 General Specifications, section 3)
// become columns.
//
// Whole numbers of 64 bits become JavaScript's numbers, which are exact up to 2^53: a timestamp is off by up
// to 128 ns. So times are passed on as they came only where that does not matter.

import * as host from "tidegate:rule/host@1.0.0";

// Application identifiers: the column that each goes to, and how long its value is; with a star, it is at
// most so long, and ends with the separator FNC1 (which scanners send as GS, 1D hexadecimal) or with the
// label.
const IDENTIFIERS = {
    "00": ["sscc", 18],
    "01": ["gtin", 14],
    "10": ["lot", "20*"],
    "11": ["produced", 6],
    "15": ["best_before", 6],
    "17": ["expires", 6],
    "21": ["serial", "20*"],
    "30": ["count", "8*"],
    "37": ["count", "8*"],
};
const SEPARATOR = "\x1d";
// What scanners say of the kind of code in front of it.
const SYMBOLOGY = /^\](C1|e0|d2|Q3|J1)/;

let column; // the place of the scanned texts in the stream
let fields; // by name, the places of the target's columns of texts

export function configSchema() {
    return JSON.stringify({
        type: "object",
        properties: { column: { type: "string", description: "the column with what was scanned" } },
        required: ["column"],
        additionalProperties: false,
    });
}

export function configure(config, inputs, targets) {
    const { column: name } = JSON.parse(config);
    if (inputs.length !== 1 || targets.length !== 1) throw "it reads one stream and writes to one target";
    column = inputs[0].fields.findIndex((field) => field.name === name && field.kind === "utf8");
    if (column < 0) throw `\`column\` names \`${name}\`, which is no text of \`${inputs[0].name}\``;
    const texts = targets[0].fields.map((field, place) => [field.name, place, field.kind]);
    fields = new Map(texts.filter(([, , kind]) => kind === "utf8").map(([name, place]) => [name, place]));
}

export function onBatch(input, rows, columns) {
    const scanned = texts(columns[column], rows);
    const causes = [];
    const written = new Map([...fields.keys()].map((name) => [name, []]));
    for (let row = 0; row < rows; row++) {
        if (scanned[row] === null) continue;
        const found = label(scanned[row]);
        causes.push(row);
        for (const [name, values] of written) values.push(found[name] ?? null);
    }
    if (causes.length === 0) return;
    const out = ([name, values]) => ({ field: fields.get(name), column: textColumn(values) });
    host.write(0, causes, [...written].map(out));
}

export function onTimer(tag) {}

// The elements of a label, by the names of their columns; `problem` says what is wrong with it.
function label(text) {
    const found = {};
    let rest = text.replace(SYMBOLOGY, "");
    while (rest.length > 0) {
        if (rest.startsWith(SEPARATOR)) {
            rest = rest.slice(1);
            continue;
        }
        const identifier = rest.slice(0, 2);
        const [name, length] = IDENTIFIERS[identifier] ?? [];
        if (name === undefined) return { ...found, problem: `there is no identifier ${identifier}` };
        rest = rest.slice(2);
        const end = rest.indexOf(SEPARATOR);
        const open = typeof length === "string";
        const value = open ? rest.slice(0, end < 0 ? undefined : end) : rest.slice(0, length);
        if (open ? value.length === 0 || value.length > parseInt(length) : value.length < length) {
            return { ...found, problem: `(${identifier}) has ${value.length} characters` };
        }
        if ((name === "gtin" || name === "sscc") && !isChecked(value)) {
            return { ...found, problem: `the check digit of (${identifier}) ${value} is wrong` };
        }
        found[name] = length === 6 ? date(value) : value;
        rest = rest.slice(value.length);
    }
    return found;
}

// Section 7.9: the digits, from the right, weigh 1 and 3 in turn.
function isChecked(digits) {
    if (!/^\d+$/.test(digits)) return false;
    const sum = [...digits].reverse().reduce((sum, digit, at) => sum + Number(digit) * (at % 2 ? 3 : 1), 0);
    return sum % 10 === 0;
}

// YYMMDD as a date; the day 00 is the month's last. The century: section 7.12, seen from 2026.
function date(text) {
    const [year, month, day] = [text.slice(0, 2), text.slice(2, 4), text.slice(4)].map(Number);
    const full = year - 26 >= 51 ? 1900 + year : year - 26 <= -50 ? 2100 + year : 2000 + year;
    const last = new Date(Date.UTC(full, month, 0)).getUTCDate();
    const two = (number) => String(number).padStart(2, "0");
    return `${full}-${two(month)}-${two(day === 0 ? last : day)}`;
}

// The texts of a column; null where there is none.
function texts({ valid, values }, rows) {
    const { offsets, data } = values.val;
    const bytes = Uint8Array.from(data);
    const isThere = (row) => !valid || (valid[row >> 3] >> (row & 7)) & 1;
    return Array.from({ length: rows }, (_, row) =>
        isThere(row) ? decode(bytes.subarray(offsets[row], offsets[row + 1])) : null,
    );
}

function textColumn(values) {
    const valid = new Uint8Array(Math.ceil(values.length / 8));
    const offsets = [0];
    const data = [];
    values.forEach((value, row) => {
        if (value !== null) {
            valid[row >> 3] |= 1 << (row & 7);
            data.push(...encode(value));
        }
        offsets.push(data.length);
    });
    return { valid, values: { tag: "utf8", val: { offsets, data: Uint8Array.from(data) } } };
}

// QuickJS has no TextDecoder.
function decode(bytes) {
    let escaped = "";
    for (const byte of bytes) escaped += "%" + byte.toString(16).padStart(2, "0");
    return decodeURIComponent(escaped);
}

function encode(text) {
    const escaped = encodeURIComponent(text);
    const bytes = [];
    for (let at = 0; at < escaped.length; at++) {
        if (escaped[at] === "%") {
            bytes.push(parseInt(escaped.slice(at + 1, at + 3), 16));
            at += 2;
        } else bytes.push(escaped.charCodeAt(at));
    }
    return bytes;
}
