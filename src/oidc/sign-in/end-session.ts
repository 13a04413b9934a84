/** How the browser ends its session at the provider (OpenID Connect RP-Initiated Logout 1.0 §2, which takes GET and POST). */
export type EndSessionRequest = {
  readonly url: string
  /** Longer than providers and what stands before them take (attack case H3): to be posted. */
  readonly isTooLong: boolean
  readonly form: { readonly action: string; readonly fields: readonly (readonly [string, string])[] }
  /** What is left to do where no page can post it: the provider asks the user then. */
  readonly urlWithoutHint: string
}

const LONGEST_URL = 2000

/**
 * @param endpoint the provider's, with what its own query has.
 * @param fields what is asked of it.
 */
export function endSessionRequest(
  endpoint: string,
  fields: readonly (readonly [name: string, value: string])[],
): EndSessionRequest {
  const urlOf = (some: typeof fields) => {
    const url = new URL(endpoint)
    for (const [name, value] of some) url.searchParams.append(name, value)
    return url.href
  }
  const url = urlOf(fields)
  return {
    url,
    isTooLong: url.length > LONGEST_URL,
    form: { action: endpoint, fields },
    urlWithoutHint: urlOf(fields.filter(([name]) => name !== 'id_token_hint')),
  }
}
