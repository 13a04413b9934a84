/** A page reached after redirects. */
export type Page = {
  readonly url: string
  readonly status: number
  readonly headers: Headers
  readonly body: string
}

/** A browser without a screen: keeps cookies per host and path, follows redirects, submits forms. */
export function createScriptedBrowser(options: { stopAt: string }) {
  const jar = new Map<string, { value: string; path: string }>()

  function keepCookies(response: Response): void {
    for (const line of response.headers.getSetCookie()) {
      const [pair = '', ...attributes] = line.split(';')
      const [name = '', value = ''] = pair.split(/=(.*)/s)
      const path = attributes
        .map((a) => a.trim().split('='))
        .find(([key]) => key?.toLowerCase() === 'path')?.[1]
      jar.set(`${name} ${path ?? '/'}`, { value, path: path ?? '/' })
    }
  }

  function cookieHeader(url: URL): string {
    return [...jar]
      .filter(([, { path, value }]) => value && url.pathname.startsWith(path))
      .map(([key, { value }]) => `${key.split(' ')[0]}=${value}`)
      .join('; ')
  }

  /** Follows redirects until a page, or until a redirect to an address that begins with `stopAt`, which it does not load. */
  async function visit(address: string, form?: Record<string, string>): Promise<Page> {
    let url = address
    let body = form && new URLSearchParams(form)
    for (let hops = 0; hops < 10; hops++) {
      const response = await fetch(url, {
        redirect: 'manual',
        headers: { cookie: cookieHeader(new URL(url)), accept: 'text/html' },
        ...(body && { method: 'POST', body }),
      })
      keepCookies(response)
      const location = response.headers.get('location')
      if (!location)
        return { url, status: response.status, headers: response.headers, body: await response.text() }
      await response.body?.cancel()
      url = new URL(location, url).href
      body = undefined
      if (url.startsWith(options.stopAt))
        return { url, status: response.status, headers: response.headers, body: '' }
    }
    throw new Error('too many redirects')
  }

  return { visit }
}
