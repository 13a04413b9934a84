/** The part of a Playwright page that is used here. There is no dependency on Playwright. */
export type PageLike = {
  goto(url: string): Promise<unknown>
  waitForURL(isThere: (url: URL) => boolean): Promise<unknown>
}

/** Where the development server is. */
export type CloakroomDevOptions = {
  /** The panel of `cloakroom dev`; default `http://127.0.0.1:8081`, that of `--port 8080`. */
  readonly panelUrl?: string
}

/** How a person signs in. */
export type SignInOptions = {
  /** Path of the application to land on; default `/`. */
  readonly returnUrl?: string
  /** With a second factor, as a step-up would ask for. */
  readonly secondFactor?: boolean
}

/** The switches of `cloakroom dev` for tests. A person is a `sub`; without one, all sessions are meant. */
export type CloakroomDev = {
  /** Signs in by the real flow (code, PKCE, session), without a page to click. Resolves on the application's page. */
  signedInAs(page: PageLike, person: string, options?: SignInOptions): Promise<void>
  expireSession(person?: string): Promise<void>
  /** The session ends in so many seconds, 10 unless given, if it is not used before. */
  idle(seconds?: number, person?: string): Promise<void>
  /** The next call of an API refreshes. */
  expireTokens(person?: string): Promise<void>
  /** The next refresh is refused: the session ends. */
  revokeTokens(person?: string): Promise<void>
  /** APIs demand a second factor; one by its path, or all. */
  demandSecondFactor(on?: boolean, path?: string): Promise<void>
  /** APIs reject our tokens; one by its path, or all. */
  rejectTokens(on?: boolean, path?: string): Promise<void>
  providerDown(on?: boolean): Promise<void>
  /** Gives or takes a role of a person, in the claim `roles` unless another is named. */
  setRole(person: string, role: string, on: boolean, claim?: string): Promise<void>
  /** Puts every switch back; sessions stay. */
  reset(): Promise<void>
}

/** The switches of one development server. Their promises reject with what the server says is wrong. */
export function cloakroomDev({ panelUrl = 'http://127.0.0.1:8081' }: CloakroomDevOptions = {}): CloakroomDev {
  async function change(name: string, input: object): Promise<{ readonly url?: string }> {
    const answer = await fetch(new URL(`/api/switches/${name}`, panelUrl), {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-csrf': '1' },
      body: JSON.stringify(input),
    }).catch((error) => {
      throw new Error(`cloakroom dev does not answer at ${panelUrl}: is it running?`, { cause: error })
    })
    const body = (await answer.json()) as { readonly detail?: string; readonly url?: string }
    if (!answer.ok) throw new Error(`cloakroom dev, ${name}: ${body.detail ?? answer.status}`)
    return body
  }
  const set = async (name: string, input: object) => void (await change(name, input))

  return {
    async signedInAs(page, person, options = {}) {
      const { url } = await change('sign-in', { person, ...options })
      if (url === undefined) throw new Error('cloakroom dev gave no sign-in URL')
      await page.goto(url)
      const { origin, pathname } = new URL(url)
      const ownPaths = pathname.replace(/login$/, '')
      // The way back is a page that goes on by itself, because no redirect from the provider brings a Strict cookie.
      await page.waitForURL((at) => at.origin === origin && !at.pathname.startsWith(ownPaths))
    },
    expireSession: (person) => set('expire-session', { person }),
    idle: (seconds = 10, person) => set('idle', { seconds, person }),
    expireTokens: (person) => set('expire-tokens', { person }),
    revokeTokens: (person) => set('revoke-tokens', { person }),
    demandSecondFactor: (on = true, path) => set('second-factor', { on, path }),
    rejectTokens: (on = true, path) => set('reject-token', { on, path }),
    providerDown: (on = true) => set('provider-down', { on }),
    setRole: (person, role, on, claim) => set('role', { person, role, on, claim }),
    reset: () => set('reset', {}),
  }
}

/** `cloakroomDev().signedInAs`, for a development server on the usual ports. */
export const signedInAs: CloakroomDev['signedInAs'] = (page, person, options) =>
  cloakroomDev().signedInAs(page, person, options)
