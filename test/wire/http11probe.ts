import type { WireCase } from './wire-case.ts'

/**
 * Which row is which test of Http11Probe (https://github.com/MDA2AV/Http11Probe), as `its id: our row`. Those that are
 * not here are about what an origin server does with a request, not about what a request is.
 */
const PROBES = `
RFC9110-5.4-DUPLICATE-HOST: A15: two fields that differ
COMP-DUPLICATE-HOST-SAME: A15: two equal fields
COMP-HOST-WITH-USERINFO: A15: a user before it
COMP-HOST-WITH-PATH: A15: a path behind it
COMP-HOST-EMPTY-VALUE: A15: an empty one
COMP-HTTP10-NO-HOST: A15: none in HTTP/1.0
RFC9112-7.1-MISSING-HOST: A15: none
SMUG-MULTIPLE-HOST-COMMA: A15: a list
SMUG-ABSOLUTE-URI-HOST-MISMATCH: A15: another host in absolute-form, ours as the field
COMP-ASTERISK-WITH-GET: A13: asterisk-form without OPTIONS
COMP-OPTIONS-STAR: A13: asterisk-form
COMP-METHOD-CONNECT: A13: CONNECT to somebody else
COMP-METHOD-TRACE: A13: TRACE
RFC9112-3-MISSING-TARGET: A13: no target
RFC9112-3.2-FRAGMENT-IN-TARGET: A8: a fragment (/api/public/x#y), from a stranger
MAL-URL-BACKSLASH: A3: a backslash after dots (/api/public/..\\\\admin), from a stranger
MAL-URL-OVERLONG-UTF8: A12: an overlong dot (/api/public/%c0%ae%c0%ae/admin), from a stranger
MAL-URL-PERCENT-CRLF: A12: an encoded CR and LF (/api/public/%0d%0aX-Evil:1), from a stranger
MAL-URL-PERCENT-NULL: A12: an encoded NUL (/api/public/%00), from a stranger
MAL-NUL-IN-URL: A12: a raw NUL (/api/public/\\u0000), from a stranger
MAL-NON-ASCII-URL: A12: raw UTF-8 (/api/public/\u00c3\u00a9), from a stranger
COMP-SPACE-IN-TARGET: A12: a raw space (/api/public/a b), from a stranger
MAL-LONG-URL: A16: a target longer than the limit
SMUG-CL-TE-BOTH: B1: Content-Length, then chunked
SMUG-CLTE-PIPELINE: B1: a request behind the length
SMUG-TECL-PIPELINE: B1: a request behind the chunks
SMUG-CLTE-CONN-CLOSE: B1: behind a request of broken framing nothing is served
SMUG-DUPLICATE-CL: B2: two that differ
SMUG-CL-COMMA-SAME: B2: a list of equals
SMUG-CL-COMMA-DIFFERENT: B2: a list of different ones
SMUG-CL-NEGATIVE: B2: a minus sign
SMUG-CL-HEX-PREFIX: B2: hexadecimal
SMUG-CL-INTERNAL-SPACE: B2: two numbers
RFC9112-6.1-CL-PLUS-SIGN: B2: a plus sign
RFC9112-6.1-CL-NON-NUMERIC: B2: no number
MAL-CL-EMPTY: B2: nothing at all
MAL-CL-OVERFLOW: B2: twenty nines
MAL-CL-TAB-BEFORE-VALUE: B2: blanks around the number are no fault
SMUG-CL-LEADING-ZEROS: B2: leading zeros
SMUG-CL-LEADING-ZEROS-OCTAL: B2: leading zeros that would be octal
SMUG-CL-DOUBLE-ZERO: B2: two zeros
NORM-UNDERSCORE-CL: B2: an underscore for the hyphen
SMUG-TE-XCHUNKED: B3: an unknown one
SMUG-TE-NOT-FINAL-CHUNKED: B3: chunked, then another
SMUG-TE-DOUBLE-CHUNKED: B3: chunked twice
SMUG-TE-IDENTITY: B3: identity and a length
SMUG-CHUNKED-WITH-PARAMS: B3: a parameter
SMUG-TE-VTAB: B3: a vertical tab before it
SMUG-TE-FORMFEED: B3: a form feed behind it
SMUG-TE-NULL: B3: a NUL behind it
SMUG-TE-LEADING-COMMA: B3: a comma before it
SMUG-TE-TRAILING-COMMA: B3: a comma behind it
SMUG-TE-OBS-FOLD: B3: a folded line
SMUG-TE-SP-BEFORE-COLON: B3: a blank before the colon
SMUG-TE-DUPLICATE-HEADERS: B3: two fields, identity first
SMUG-TE-EMPTY-VALUE: B3: nothing at all
SMUG-TE-HTTP10: B3: in HTTP/1.0
SMUG-TE-CASE-MISMATCH: B3: capitals
SMUG-TE-TRAILING-SPACE: B3: blanks around it
SMUG-TRANSFER_ENCODING: B3: an underscore for the hyphen
NORM-UNDERSCORE-TE: B3: an underscore for the hyphen beside a length
COMP-UNKNOWN-TE-501: B3: gzip alone
SMUG-CHUNK-SIZE-PLUS: B4: a size with a plus sign
SMUG-CHUNK-NEGATIVE: B4: a size with a minus sign
SMUG-CHUNK-HEX-PREFIX: B4: a size with a prefix
SMUG-CHUNK-UNDERSCORE: B4: a size with an underscore
SMUG-CHUNK-LEADING-SP: B4: a size with a blank before it
SMUG-CHUNK-SIZE-TRAILING-OWS: B4: a size with a blank behind it
MAL-CHUNK-SIZE-OVERFLOW: B4: a size of seventeen digits
SMUG-CHUNK-BARE-SEMICOLON: B4: an extension without a name
SMUG-CHUNK-EXT-LF: B4: an extension with a bare LF
SMUG-CHUNK-EXT-CR: B4: an extension with a bare CR
SMUG-CHUNK-EXT-CTRL: B4: an extension with a NUL
MAL-CHUNK-EXTENSION-LONG: B4: many extensions of one chunk
SMUG-CHUNK-LF-TERM: B4: a bare LF behind the data
SMUG-CHUNK-BARE-CR-TERM: B4: a bare CR behind the size
SMUG-CHUNK-MISSING-TRAILING-CRLF: B4: nothing behind the data
SMUG-CHUNK-SPILL: B4: more data than the size
SMUG-CHUNK-LF-TRAILER: B4: a bare LF behind the last chunk
COMP-CHUNKED-NO-FINAL: B4: a client that ends before the last chunk
COMP-POST-CL-UNDERSEND: B4: a client that ends in the middle of a body
RFC9112-2.2-BARE-LF-HEADER: B4: a bare LF within a value
RFC9112-2.2-BARE-LF-REQUEST-LINE: B4: a bare LF behind the request line
RFC9112-3-CR-ONLY-LINE-ENDING: B4: a bare CR behind the request line
SMUG-BARE-CR-HEADER-VALUE: B4: a bare CR within a value
MAL-NUL-IN-HEADER-VALUE: B4: a NUL within a value
MAL-CONTROL-CHARS-HEADER: B4: a control byte within a value
MAL-NON-ASCII-HEADER-NAME: B4: a Latin-1 byte within a name
RFC9112-5.1-OBS-FOLD: B4: a folded line
RFC9112-5-HEADER-NO-COLON: B4: a field without a colon
RFC9112-5-EMPTY-HEADER-NAME: B4: a field without a name
RFC9112-5-INVALID-HEADER-NAME: B4: a blank within a name
RFC9110-5.6.2-SP-BEFORE-COLON: C2: a blank before the colon
RFC9112-3-MULTI-SP-REQUEST-LINE: B4: two blanks behind the method
COMP-REQUEST-LINE-TAB: B4: a tab behind the method
COMP-METHOD-CASE: B4: a method in small letters
COMP-UNKNOWN-METHOD: B4: a method that nobody knows
COMP-VERSION-CASE: B4: a protocol in small letters
RFC9112-2.3-INVALID-VERSION: B4: HTTP/11
RFC9112-2.3-HTTP09-REQUEST: B4: HTTP/0.9
MAL-H2-PREFACE: B4: the preface of HTTP/2
MAL-BINARY-GARBAGE: B4: the beginning of TLS
COMP-LEADING-CRLF: B4: empty lines before the request are no fault
SMUG-GET-CL-BODY-DESYNC: B6: GET with a body that looks like a request
SMUG-HEAD-CL-BODY: B6: HEAD with a body that looks like a request
SMUG-OPTIONS-CL-BODY-DESYNC: B6: OPTIONS with a body that looks like a request
COMP-GET-WITH-CL-BODY: B6: GET with a small body
SMUG-CL0-BODY-POISON: B6: bytes behind a length of nought are the next request
SMUG-TRAILER-AUTH: B7: a trailer: Authorization
SMUG-TRAILER-HOST: B7: a trailer: Host
SMUG-TRAILER-TE: B7: a trailer: Transfer-Encoding
SMUG-TRAILER-CL: B7: a trailer that frames
SMUG-EXPECT-100-CL: B8: the body is asked for, and then comes
SMUG-EXPECT-100-CL-DESYNC: B8: a GET whose body is a request
COMP-EXPECT-UNKNOWN: B8: an expectation that nobody knows
MAL-MANY-HEADERS: B11: ten thousand fields
MAL-LONG-HEADER-NAME: B11: a name of 64 KB
MAL-LONG-HEADER-VALUE: B11: a field of a megabyte
MAL-LONG-METHOD: B11: a method without end
MAL-INCOMPLETE-REQUEST: B11: slowloris: a head that stops in the middle
MAL-EMPTY-REQUEST: B11: slowloris: a connection that says nothing
COMP-405-ALLOW: C11: a method that the route does not have
COMP-UPGRADE-POST: I3: by POST
COMP-UPGRADE-UNKNOWN: I3: TLS
COMP-UPGRADE-INVALID-VER: I3: WebSocket 8
COMP-UPGRADE-MISSING-CONN: I3: Upgrade without Connection is not passed on
COMP-UPGRADE-HTTP10: I3: in HTTP/1.0
`

const PAIRS = PROBES.trim()
  .split('\n')
  .map((line): readonly [probe: string, row: string] => {
    const colon = line.indexOf(': ')
    return [line.slice(0, colon), line.slice(colon + 2)]
  })

/** The tests of Http11Probe among the rows, in no order. */
export const PROBE_ROWS: ReadonlyMap<string, string> = new Map(PAIRS)

const BY_ROW = Map.groupBy(PAIRS, ([, row]) => row)

/** By what a row is known: its number in the list of cases and its name. */
export function rowOf({ id, name }: WireCase): string {
  return `${id}: ${name}`
}

/** Ids of the tests of Http11Probe that a row is. */
export function probesOf(row: string): readonly string[] {
  return (BY_ROW.get(row) ?? []).map(([probe]) => probe)
}
