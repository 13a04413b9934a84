/**
 * The `claims` parameter of a request to Entra ID: what a challenge asks for, with our client capabilities merged in
 * as `xms_cc`. Undefined when there is neither.
 *
 * @param claims JSON text of a challenge; anything that is no JSON object is left out.
 */
export function claimsRequest(capabilities: readonly string[], claims?: string): string | undefined {
  const asked = objectOf(claims)
  if (capabilities.length === 0) return asked && JSON.stringify(asked)
  const accessToken = isObject(asked?.access_token) ? asked.access_token : {}
  return JSON.stringify({ ...asked, access_token: { ...accessToken, xms_cc: { values: capabilities } } })
}

/** The request parameter for `claims`, or none. */
export function claimsParameter(claims: string | undefined): [name: string, value: string][] {
  return claims === undefined ? [] : [['claims', claims]]
}

function objectOf(text: string | undefined): Record<string, unknown> | undefined {
  if (text === undefined) return undefined
  try {
    const value: unknown = JSON.parse(text)
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
