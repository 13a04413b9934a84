const MAX_LENGTH = 2048

/**
 * The path to return to after sign-in or sign-out, if `value` is one on this origin; undefined otherwise.
 * Strict on purpose (RFC 9700 §4.11.1): what one parser calls a path another calls a host.
 *
 * @param publicUrl the origin that browsers see.
 * @param basePath Cloakroom's own endpoints, which are no place to return to: that could loop.
 */
export function parseReturnUrl(value: unknown, publicUrl: string, basePath: string): string | undefined {
  if (value === undefined) return '/'
  if (typeof value !== 'string' || value.length > MAX_LENGTH || !value.startsWith('/')) return undefined
  // biome-ignore lint/suspicious/noControlCharactersInRegex: browsers drop some control characters from URLs
  if (/[\u0000-\u0020\u007f-\uffff\\@]/.test(value.split(/[?#]/, 1)[0] ?? '')) return undefined
  // biome-ignore lint/suspicious/noControlCharactersInRegex: as above, for query and fragment
  if (/[\u0000-\u0020\u007f-\uffff\\]/.test(value)) return undefined
  const url = URL.parse(value, publicUrl)
  if (!url || url.origin !== publicUrl || url.username || url.password) return undefined
  const path = decodedPath(url.pathname)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: an encoded line break must not become a header
  if (path === undefined || /^\/[/\\]|[\u0000-\u001f\u007f\\]/.test(path)) return undefined
  if (path === basePath || path.startsWith(`${basePath}/`)) return undefined
  return url.pathname + url.search + url.hash
}

function decodedPath(path: string): string | undefined {
  try {
    return decodeURIComponent(path)
  } catch {
    return undefined
  }
}
