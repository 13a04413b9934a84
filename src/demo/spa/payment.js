import { cloakroom } from './cloakroom.js'
import { byId, jsonOf, make, onAction, tell } from './dom.js'

const euros = new Intl.NumberFormat(undefined, { style: 'currency', currency: 'EUR' })

/** A step-up: the route asks for a second factor, and the payment waits for it. */
export function startPayment({ onPaid }) {
  onAction(byId('payment'), 'payment-result', async () => {
    const invoice = byId('invoice').value
    tell('payment-result', 'Sending…')
    const response = await cloakroom.fetch('/api/billing/payments', {
      method: 'POST',
      body: JSON.stringify({ invoice }),
      whenSignedOut: 'wait',
    })
    const { payment } = await jsonOf(response)
    tell('payment-result', `${payment.invoice} is paid, with a second factor.`)
    onPaid()
  })
}

/** A report that only those with a role may read. */
export function startReport() {
  onAction(byId('read-report'), 'report-result', async () => {
    const { report } = await jsonOf(await cloakroom.fetch('/api/billing/report'))
    tell('report-result', `${report.invoices} invoices, ${euros.format(report.total / 100)} in all.`)
  })
}

/** The invoices to choose from. */
export function showInvoices(invoices) {
  const choice = byId('invoice')
  const options = invoices.map(({ id, amount, status }) =>
    make('option', `${id}, ${euros.format(amount / 100)}${status === 'paid' ? ', paid' : ''}`, { value: id }),
  )
  const texts = (list) => list.map(({ textContent }) => textContent).join('\n')
  if (texts([...choice.options]) === texts(options)) return
  const open = invoices.find(({ status }) => status !== 'paid')
  choice.replaceChildren(...options)
  choice.value = open?.id ?? invoices[0].id
}
