import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type DevArguments, readDevArguments } from '../../src/cli/dev/arguments.ts'
import { readDevConfig } from '../../src/cli/dev/dev-config.ts'
import { type DevServer, startDevServer } from '../../src/cli/dev/dev-server.ts'
import { readPersons } from '../../src/cli/dev/persons.ts'
import { openStateFile, type StateFile } from '../../src/cli/dev/state-file.ts'
import { type CloakroomDev, cloakroomDev } from '../../src/demo/dev/playwright.ts'
import { jwtClaims } from '../../src/demo/scripted/signing.ts'
import { type Browser, createBrowser } from './browsers/browser.ts'
import { type LocalServer, sendHtml, sendJson, startLocalServer } from './local-server.ts'
import { freePort } from './ports.ts'
import { eventually } from './shops/deadline.ts'
import { bearerToken } from './upstream/upstream.ts'

/** A project of somebody who develops: an application and an API, not behind Cloakroom yet. */
export type DevProject = {
  readonly folder: string
  readonly app: LocalServer
  readonly api: LocalServer
  /** The three ports, so that a second start has the same. */
  readonly ports: readonly string[]
  readonly stateFile: StateFile
  /** Starts the application again where it was, after `app.close()`. */
  reopenApp(): Promise<void>
  close(): Promise<void>
}

/** A development server of that project, and its switches. */
export type RunningDev = {
  readonly server: DevServer
  readonly args: DevArguments
  readonly logLines: string[]
  readonly switches: CloakroomDev
  browser(): Browser
}

/** The two APIs, which are one program here. */
export const DEV_AUDIENCES = { orders: 'api://orders', billing: 'https://billing.example.com' }

/** Makes a project. The API tells the claims of the access token that it got. */
export async function createDevProject(): Promise<DevProject> {
  const folder = mkdtempSync(join(tmpdir(), 'cloakroom-dev-'))
  const startApp = (port?: number) =>
    startLocalServer((request, res) => sendHtml(res, 200, `<h1>app ${request.path}</h1>`), port)
  const app = await startApp()
  let reopened: LocalServer | undefined
  const api = await startLocalServer((request, res) => {
    const token = bearerToken(request)
    if (token === undefined) return sendJson(res, 401, { error: 'no token' })
    const { aud, sub, roles, scope, acr, jti, uti } = jwtClaims(token) ?? {}
    sendJson(res, 200, { aud, sub, roles, scope, acr, id: jti ?? uti })
  })
  const port = await freePort()
  const ports = [port, await freePort(), await freePort()]
  const names = ['--port', '--panel-port', '--provider-port']
  return {
    ...{ folder, app, api },
    ports: names.flatMap((name, index) => [name, String(ports[index])]),
    stateFile: openStateFile(port, { env: { XDG_STATE_HOME: folder }, folder }),
    async reopenApp() {
      reopened = await startApp(app.port)
    },
    async close() {
      await app.close()
      await reopened?.close()
      await api.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** Starts the development server of a project, with more arguments. */
export async function startDev(project: DevProject, more: readonly string[] = []): Promise<RunningDev> {
  const { orders, billing } = DEV_AUDIENCES
  const usual = more.includes('--config')
    ? []
    : [
        ...['--app', project.app.origin],
        ...['--api', `/api/orders=${project.api.origin},aud=${orders}`],
        ...['--api', `/api/billing=${project.api.origin},aud=${billing},scopes=billing.read`],
      ]
  const args = readDevArguments([...usual, ...project.ports, ...more])
  if (args === 'help') throw new Error('no help is wanted')
  const io = { stdout: { write() {} }, stderr: { write() {} }, env: {} }
  const logLines: string[] = []
  const start = () =>
    startDevServer({
      args,
      devConfig: readDevConfig(args, io),
      persons: readPersons(args.persons),
      stateFile: project.stateFile,
      onLogLine: (line) => logLines.push(line),
    }).catch((error: NodeJS.ErrnoException) => {
      // Between two starts the ports are free, and another process that looks for one may try them.
      if (error.code !== 'EADDRINUSE') throw error
      return undefined
    })
  const server = await eventually('its ports are free again', start, { withinMs: 5_000, everyMs: 100 })
  return {
    ...{ server, args, logLines, switches: cloakroomDev({ panelUrl: server.panelUrl }) },
    browser: () => createBrowser({ origin: server.publicUrl }),
  }
}

/** Signs a scripted browser in as a Playwright page would be. */
export function signInAs(
  dev: RunningDev,
  browser: Browser,
  person: string,
  secondFactor = false,
): Promise<void> {
  const page = {
    goto: (url: string) => browser.navigate(url),
    async waitForURL(isThere: (url: URL) => boolean) {
      const last = browser.exchanges.at(-1)
      if (!last || !isThere(last.url)) throw new Error(`stopped at ${last?.url.href}: ${last?.body}`)
    },
  }
  return dev.switches.signedInAs(page, person, { secondFactor })
}
