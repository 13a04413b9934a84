const MESSAGES: Readonly<Record<string, string>> = {
  TAB_AS_INDENT: 'a tab cannot indent YAML: use blanks',
  BAD_INDENT: 'the indentation does not match the lines around it, or a bracket is not closed',
  BLOCK_AS_IMPLICIT_KEY:
    'a second "key:" on one line: put it on its own line, or the text in quotes; or a line below is not indented like this one, or a blank is missing behind a "-"',
  MULTILINE_IMPLICIT_KEY: 'a key must stand on one line: is a ":" missing, or the indentation wrong?',
  MISSING_CHAR: 'something is missing here or above: a ":", a closing quote or a closing bracket',
  BAD_SCALAR_START: 'a text that starts with this character must stand in quotes',
  BAD_DQ_ESCAPE: 'unknown \\ escape in double quotes: use \\\\ or single quotes',
  MULTIPLE_DOCS:
    'a second YAML document begins here, and only the first would be read: remove the "---" or "..." that divides them, or give it a file of its own',
  BAD_ALIAS: 'an alias (*name) without a name',
  TAG_RESOLVE_FAILED: 'unknown YAML tag: a text that starts with "!" must stand in quotes',
  UNEXPECTED_TOKEN: 'this cannot stand here: is a quote, a bracket or a line break missing before it?',
}

/** One of the YAML parser's error codes in plain words. The parser's own text is not shown: it may quote a secret. */
export function yamlMessage(code: string): string {
  const words = Object.hasOwn(MESSAGES, code) ? MESSAGES[code] : `the parser says ${code}`
  return `not valid YAML: ${words}`
}
