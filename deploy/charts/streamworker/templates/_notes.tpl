{{/* What `helm install` says. */}}
{{- define "streamworker.notes" -}}
{{- $selector := printf "app.kubernetes.io/instance=%s" .Release.Name -}}
streamworker {{ .Chart.AppVersion }}, release {{ .Release.Name }} in namespace {{ .Release.Namespace }}.
{{ range $name, $_ := .Values.workers }}
{{- $one := dict "root" $ "name" $name }}
{{- $worker := include "streamworker.worker" $one | fromJson }}
  {{ $worker.kind }} {{ include "streamworker.workerName" $one }}: group {{ $worker.group }}, {{ join ", " $worker.handlers }}
{{- if eq $worker.autoscaling.mode "none" }}, {{ $worker.replicas }} pods
{{- else }}, {{ $worker.autoscaling.minReplicas }} to {{ include "streamworker.maxReplicas" $worker }} pods by {{ $worker.autoscaling.mode }}
{{- end }}
{{- if $worker.canary.enabled }}, {{ $worker.canary.replicas }} more as a canary{{ end }}
{{- end }}

Are they well?
  kubectl -n {{ .Release.Namespace }} get pods -l {{ $selector }}
  helm -n {{ .Release.Namespace }} test {{ .Release.Name }} --logs
{{- range $name, $_ := .Values.workers }}
{{- $one := dict "root" $ "name" $name }}
{{- $worker := include "streamworker.worker" $one | fromJson }}
{{- if eq $worker.autoscaling.mode "keda" }}
  kubectl -n {{ $.Release.Namespace }} get scaledobject,hpa -l {{ $selector }}
{{- end }}
{{- end }}
{{- if .Values.console.enabled }}

The console is at {{ .Values.console.publicUrl }}.
{{- if not (or .Values.console.accounts.existingSecret .Values.console.proxySecret.existingSecret .Values.console.oidc.issuer) }}
There are no accounts, so its log has a link that signs in one browser:
  kubectl -n {{ .Release.Namespace }} logs deploy/{{ include "streamworker.fullname" . }}-console | grep token=
{{- end }}
{{- end }}
{{- $hpa := list }}
{{- range $name, $_ := .Values.workers }}
{{- $worker := include "streamworker.worker" (dict "root" $ "name" $name) | fromJson }}
{{- if eq $worker.autoscaling.mode "hpa" }}{{- $hpa = append $hpa $name }}{{- end }}
{{- end }}
{{- if $hpa }}

The HorizontalPodAutoscaler of {{ join ", " $hpa }} asks for the external metric streamworker_group_lag_records, which a
prometheus-adapter gives by this rule. Prometheus has to scrape the lag observer, for instance by podMonitor.enabled.
The selector of the HPA names group and topic, so the query must not choose any.

  externalRules:
    - seriesQuery: '{__name__="streamworker_group_lag_records",namespace!="",group!=""}'
      resources: {overrides: {namespace: {resource: namespace}}}
      name: {as: streamworker_group_lag_records}
      metricsQuery: 'max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'

Is it there?
  kubectl get --raw "/apis/external.metrics.k8s.io/v1beta1/namespaces/{{ .Release.Namespace }}/streamworker_group_lag_records"
{{- if not (include "streamworker.lagObserved" .) }}
lagObserver.enabled is false, so something else has to export it.
{{- end }}
{{- end }}
{{- if and .Values.kafka.sasl.mechanism (not .Values.kafka.tls.enabled) }}

WARNING: credentials go to the brokers in the clear. Set kafka.tls.enabled to true.
{{- end }}
{{- end -}}
