import { cloakroom } from './cloakroom.js'
import { byId, jsonOf, onAction, tell } from './dom.js'

/** A form that loses nothing: a request that met an ended session waits for the sign-in, and is sent again. */
export function startOrder({ onPlaced }) {
  const form = byId('order')
  onAction(form, 'order-result', async () => {
    const { item, quantity } = Object.fromEntries(new FormData(form))
    tell('order-result', 'Sending…')
    const response = await cloakroom.fetch('/api/orders', {
      method: 'POST',
      body: JSON.stringify({ item, quantity: Number(quantity) }),
      whenSignedOut: 'wait',
    })
    const { order } = await jsonOf(response)
    tell('order-result', `Order ${order.id} is placed.`)
    form.reset()
    onPlaced()
  })
}
