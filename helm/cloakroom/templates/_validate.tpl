{{/* Every problem the chart can see, in one report. `check` judges the rest of the config. */}}
{{- define "cloakroom.validate" -}}
{{- $problems := concat (include "cloakroom.missing" . | fromYamlArray) (include "cloakroom.exposed" . | fromYamlArray) (include "cloakroom.conflicts" . | fromYamlArray) -}}
{{- if $problems -}}
{{- fail (printf "\n\nThe chart cannot be rendered yet:\n  - %s\n" (join "\n  - " $problems)) -}}
{{- end -}}
{{- end }}

{{/* What a pod cannot start without. */}}
{{- define "cloakroom.missing" -}}
{{- $config := include "cloakroom.config" . | fromYaml -}}
{{- $p := list -}}
{{- if and (not .Values.secrets.existingSecret) (include "cloakroom.secretItems" . | fromYaml) (not .Values.secrets.secretProviderClass) -}}
{{- $p = append $p (printf "secrets.existingSecret: name the Secret that holds %s, e.g. --set secrets.existingSecret=cloakroom" (include "cloakroom.secretItems" . | fromYaml | keys | sortAlpha | join ", ")) -}}
{{- end -}}
{{- if not $config.publicUrl -}}
{{- $p = append $p "config.publicUrl: the origin that browsers see is missing, e.g. https://app.example.com" -}}
{{- end -}}
{{- if not (regexMatch "^https?://[^/]+/?$|^\\$\\{|^$" (toString $config.publicUrl)) -}}
{{- $p = append $p "config.publicUrl: must be an origin, e.g. https://app.example.com" -}}
{{- end -}}
{{- if and (contains "${" (toString $config.publicUrl)) (or .Values.ingress.enabled (and .Values.httpRoute.enabled (not .Values.httpRoute.hostnames))) -}}
{{- $p = append $p "config.publicUrl: is a variable, so that the chart does not know the host of the Ingress or HTTPRoute; write it out" -}}
{{- end -}}
{{- range $name, $address := dict "config.listen" $config.listen "config.admin.listen" (default dict $config.admin).listen -}}
{{- if not (regexMatch ":[1-9][0-9]*$" (toString $address)) -}}
{{- $p = append $p (printf "%s: must be host:port with a fixed port, e.g. 0.0.0.0:8080" $name) -}}
{{- end -}}
{{- end -}}
{{- if not .Values.existingConfigMap -}}
{{- if not $config.provider.issuer -}}
{{- $p = append $p "config.provider.issuer: the identity provider is missing, e.g. https://login.microsoftonline.com/TENANT/v2.0" -}}
{{- end -}}
{{- if not $config.provider.clientId -}}
{{- $p = append $p "config.provider.clientId: the client id registered at the provider is missing" -}}
{{- end -}}
{{- if not $config.routes -}}
{{- $p = append $p "config.routes: no route yet, e.g. [{ path: /, upstream: \"http://spa:80\", auth: anonymous }]" -}}
{{- end -}}
{{- $store := $config.session.store -}}
{{- if and (eq $store.type "redis") (not (or $store.url $store.cluster $store.sentinels)) -}}
{{- $p = append $p "config.session.store.url: where is Redis? e.g. rediss://redis:6379; or cluster, or sentinels with masterName; to try it out, demoValkey.enabled: true" -}}
{{- end -}}
{{- if and .Values.demoValkey.enabled (ne (toString $store.url) (printf "redis://%s-valkey:6379" (include "cloakroom.fullname" .))) -}}
{{- $p = append $p "demoValkey.enabled: and a store in config.session.store: leave one of them out" -}}
{{- end -}}
{{- $environment := list -}}
{{- range .Values.extraEnv }}{{ $environment = append $environment .name }}{{ end -}}
{{- if not .Values.extraEnvFrom -}}
{{- range splitList "\n" (include "cloakroom.valuesOf" (dict "key" "env" "value" $config)) -}}
{{- if and . (not (has . $environment)) -}}
{{- $p = append $p (printf "extraEnv: the config reads the variable %s, which is neither there nor in extraEnvFrom" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- $p = append $p "httpRoute.parentRefs: which Gateway? e.g. [{ name: public, namespace: gateways }]" -}}
{{- end -}}
{{- if and .Values.keda.enabled (not .Values.keda.triggers) -}}
{{- $p = append $p "keda.triggers: by what is it scaled? e.g. [{ type: cpu, metricType: Utilization, metadata: { value: \"70\" } }]" -}}
{{- end -}}
{{- toYaml $p }}
{{- end }}

{{/* Secrets that would stand in the ConfigMap, which more people may read than Secrets. No message repeats one. */}}
{{- define "cloakroom.exposed" -}}
{{- $config := include "cloakroom.config" . | fromYaml -}}
{{- $p := list -}}
{{- $variable := "^\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}$" -}}
{{- $auth := $config.provider.clientAuth -}}
{{- $store := $config.session.store -}}
{{- if regexMatch "://[^/@]*:[^/@$][^/@]*@" (toString (default "" $store.url)) -}}
{{- $p = append $p (printf "config.session.store.url: holds a password, which would stand in the ConfigMap; write password: { file: %s/redis-password } instead" .Values.secrets.mountPath) -}}
{{- else if regexMatch "://[^/@\\s\"]*:[^/@$\\s\"][^/@\\s\"]*@" (toYaml $config) -}}
{{- $p = append $p "config: a URL holds a password, which would stand in the ConfigMap" -}}
{{- end -}}
{{- range $name, $value := dict "config.provider.clientAuth.secret" $auth.secret "config.provider.clientAuth.key" $auth.key "config.session.store.password" $store.password "config.session.store.sentinelPassword" $store.sentinelPassword "config.provider.sharedSignals.authorization" (default dict $config.provider.sharedSignals).authorization -}}
{{- if and $value (kindIs "string" $value) (not (regexMatch $variable $value)) -}}
{{- $p = append $p (printf "%s: a secret written here would stand in the ConfigMap; write { file: %s/NAME } instead" $name $.Values.secrets.mountPath) -}}
{{- end -}}
{{- end -}}
{{- range $i, $key := default list $config.session.keys -}}
{{- if and (kindIs "string" $key) (not (regexMatch $variable $key)) -}}
{{- $p = append $p (printf "config.session.keys[%d]: a session key written here would stand in the ConfigMap; write { file: %s/session-key } instead" $i $.Values.secrets.mountPath) -}}
{{- end -}}
{{- end -}}
{{- if contains "PRIVATE KEY-----" (toYaml $config) -}}
{{- $p = append $p (printf "config: holds a private key, which would stand in the ConfigMap; write { file: %s/NAME } instead" .Values.secrets.mountPath) -}}
{{- end -}}
{{- toYaml $p }}
{{- end }}

{{/* Values that cannot both be meant, or that end badly together. */}}
{{- define "cloakroom.conflicts" -}}
{{- $config := include "cloakroom.config" . | fromYaml -}}
{{- $p := list -}}
{{- $most := int (include "cloakroom.maxReplicas" .) -}}
{{- if and (eq $config.session.store.type "memory") (gt $most 1) (not .Values.existingConfigMap) -}}
{{- $p = append $p (printf "config.session.store.type: memory is not shared between %d replicas, users would lose their sessions at random; use redis, or replicas: 1" $most) -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled .Values.keda.enabled -}}
{{- $p = append $p "keda.enabled: KEDA makes a HorizontalPodAutoscaler of its own, which would fight with that of autoscaling.enabled; switch one off" -}}
{{- end -}}
{{- range $name, $scaler := dict "autoscaling" (list .Values.autoscaling.enabled .Values.autoscaling.minReplicas .Values.autoscaling.maxReplicas "minReplicas" "maxReplicas") "keda" (list .Values.keda.enabled .Values.keda.minReplicaCount .Values.keda.maxReplicaCount "minReplicaCount" "maxReplicaCount") -}}
{{- if and (index $scaler 0) (gt (int (index $scaler 1)) (int (index $scaler 2))) -}}
{{- $p = append $p (printf "%s.%s: %d is more than %s, %d" $name (index $scaler 3) (int (index $scaler 1)) (index $scaler 4) (int (index $scaler 2))) -}}
{{- end -}}
{{- end -}}
{{- if .Values.autoscaling.enabled -}}
{{- if and .Values.autoscaling.targetCPUUtilizationPercentage (not (dig "requests" "cpu" "" (default dict .Values.resources))) -}}
{{- $p = append $p "autoscaling.targetCPUUtilizationPercentage: is of resources.requests.cpu, which is missing" -}}
{{- end -}}
{{- if not (or .Values.autoscaling.targetCPUUtilizationPercentage .Values.autoscaling.metrics) -}}
{{- $p = append $p "autoscaling: nothing to scale by; set targetCPUUtilizationPercentage or metrics" -}}
{{- end -}}
{{- end -}}
{{- $names := list "CLOAKROOM_CONFIG" -}}
{{- range .Values.extraEnv -}}
{{- if has .name $names -}}
{{- $p = append $p (printf "extraEnv: %s is there twice, and which one wins would be chance" .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- $paths := list "/etc/cloakroom" -}}
{{- if include "cloakroom.hasSecrets" . }}{{ $paths = append $paths .Values.secrets.mountPath }}{{ end -}}
{{- range .Values.extraVolumeMounts -}}
{{- if has .mountPath $paths -}}
{{- $p = append $p (printf "extraVolumeMounts: something is mounted at %s already" .mountPath) -}}
{{- end -}}
{{- $paths = append $paths .mountPath -}}
{{- end -}}
{{- $volumes := list "config" "secrets" -}}
{{- range .Values.extraVolumes -}}
{{- if has .name $volumes -}}
{{- $p = append $p (printf "extraVolumes: a volume %s is there already" .name) -}}
{{- end -}}
{{- $volumes = append $volumes .name -}}
{{- end -}}
{{- $files := include "cloakroom.secretItems" . | fromYaml | keys -}}
{{- range .Values.secrets.additional -}}
{{- range $file, $_ := .files -}}
{{- if has $file $files -}}
{{- $p = append $p (printf "secrets.additional: two Secrets bring the file %s" $file) -}}
{{- end -}}
{{- $files = append $files $file -}}
{{- end -}}
{{- end -}}
{{- if and .Values.secrets.secretProviderClass (or .Values.secrets.existingSecret .Values.secrets.additional) -}}
{{- $p = append $p "secrets.secretProviderClass: is in place of existingSecret and additional; leave them empty" -}}
{{- end -}}
{{- if and (eq (toString $config.provider.clientAuth.method) "workload_identity") (has (trimPrefix "/var" .Values.secrets.mountPath) (list "/run/secrets" "/run")) (include "cloakroom.hasSecrets" .) -}}
{{- $p = append $p (printf "secrets.mountPath: workload identity mounts its token below /var/run/secrets, which is %s, where it could make no directory; use e.g. /run/cloakroom, in the file: paths of config too" .Values.secrets.mountPath) -}}
{{- end -}}
{{- $preStop := int (dig "preStop" "sleep" "seconds" .Values.preStopSleepSeconds (default dict .Values.lifecycle)) -}}
{{- $needed := add $preStop (include "cloakroom.seconds" (default "0s" $config.drainDelay) | int) 38 -}}
{{- if lt (int .Values.terminationGracePeriodSeconds) (int $needed) -}}
{{- $p = append $p (printf "terminationGracePeriodSeconds: must be at least %d (preStopSleepSeconds, config.drainDelay, 25 s for requests in flight, 13 s for what is to be stored), or they are cut off" $needed) -}}
{{- end -}}
{{- if and (gt $preStop 0) (semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version) -}}
{{- $p = append $p "preStopSleepSeconds: Kubernetes has it since 1.30; use config.drainDelay" -}}
{{- end -}}
{{- $limit := dig "limits" "memory" "" (default dict .Values.resources) -}}
{{- if and $limit .Values.heapPercent (lt (include "cloakroom.mebibytes" $limit | int) 192) -}}
{{- $p = append $p (printf "resources.limits.memory: %s is too little, a replica at rest has about 130 MB; at least 192Mi" (toString $limit)) -}}
{{- end -}}
{{- if .Values.apiCheck -}}
{{- $monitoring := "monitoring.coreos.com/v1" -}}
{{- $needs := dict "serviceMonitor.enabled" (list .Values.serviceMonitor.enabled $monitoring) "podMonitor.enabled" (list .Values.podMonitor.enabled $monitoring) "prometheusRule.enabled" (list .Values.prometheusRule.enabled $monitoring) "keda.enabled" (list .Values.keda.enabled "keda.sh/v1alpha1") "httpRoute.enabled" (list .Values.httpRoute.enabled "gateway.networking.k8s.io/v1") "dashboard.kind" (list (and .Values.dashboard.enabled (eq .Values.dashboard.kind "GrafanaDashboard")) "grafana.integreatly.org/v1beta1") -}}
{{- range $value, $need := $needs -}}
{{- if and (index $need 0) (not ($.Capabilities.APIVersions.Has (index $need 1))) -}}
{{- $p = append $p (printf "%s: this cluster does not know %s. Install what brings it; with `helm template` add --api-versions %s, or set apiCheck: false" $value (index $need 1) (index $need 1)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled -}}
{{- $p = append $p "podMonitor.enabled: beside serviceMonitor.enabled every number would be there twice; switch one off" -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled (not .Values.adminService.enabled) -}}
{{- $p = append $p "serviceMonitor.enabled: scrapes through adminService, which is off; use podMonitor" -}}
{{- end -}}
{{- if and (hasPrefix "http://" (toString $config.publicUrl)) (or .Values.ingress.enabled .Values.httpRoute.enabled) -}}
{{- $p = append $p "config.publicUrl: browsers send the session cookie over https only; write https://, TLS ends at the Ingress or Gateway" -}}
{{- end -}}
{{- $resources := default dict .Values.config.resources -}}
{{- range $name, $part := .Values.configParts -}}
{{- range $resource, $_ := (default dict $part).resources -}}
{{- if hasKey $resources $resource -}}
{{- $p = append $p (printf "configParts.%s.resources.%s: is defined elsewhere too" $name $resource) -}}
{{- end -}}
{{- $resources = merge (dict $resource true) $resources -}}
{{- end -}}
{{- end -}}
{{- if and .Values.existingConfigMap .Values.configParts -}}
{{- $p = append $p "configParts: cannot be added to existingConfigMap" -}}
{{- end -}}
{{- toYaml $p }}
{{- end }}
