import type { Page } from 'playwright-core'
import { APP, COOKIE, SIBLING } from './https-site.ts'

/** Sets a cookie of the session's name as a script would, and gives what scripts see of cookies then. */
export const SET_BY_SCRIPT = `document.cookie = '${COOKIE}=x; Secure; Path=/'; document.cookie`

/** Scripts of a page; each evaluates to what the page got, or `failed`. */
export const attempts = {
  fetch: (origin: string, path: string, init: object) =>
    `fetch('${origin}${path}', ${JSON.stringify(init)}).then(({ status }) => status, () => 'failed')`,
  image: (path: string) =>
    `new Promise((resolve) => {
      const image = new Image()
      image.onload = () => resolve('loaded')
      image.onerror = () => resolve('failed')
      image.src = '${APP}${path}'
    })`,
  eventSource: (origin: string) =>
    `new Promise((resolve) => {
      const events = new EventSource('${origin}/api/orders/events', { withCredentials: true })
      const done = (result) => { events.close(); resolve(result) }
      events.onmessage = ({ data }) => done(data)
      events.onerror = () => done('failed')
    })`,
  webSocket: `new Promise((resolve) => {
      const socket = new WebSocket('${APP.replace('https', 'wss')}/api/live')
      socket.onopen = () => socket.send('hello')
      socket.onmessage = ({ data }) => { socket.close(); resolve(data) }
      socket.onerror = () => resolve('failed')
    })`,
}

/** Posts forms from the sibling to an API, a file and the logout; gives the statuses of the answers. */
export async function submitForms(page: Page): Promise<number[]> {
  const statuses: number[] = []
  for (const path of ['/api/orders', '/files/report', '/bff/logout']) {
    await page.goto(SIBLING)
    const answer = page.waitForResponse(`${APP}${path}`)
    await page.evaluate(`(() => {
      const form = document.body.appendChild(document.createElement('form'))
      Object.assign(form, { method: 'post', action: '${APP}${path}' }).submit()
    })()`)
    statuses.push((await answer).status())
    await page.waitForURL(`${APP}${path}`)
  }
  return statuses
}
